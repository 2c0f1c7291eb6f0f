# The records of the AuthZEN certification scenario. It gives bob his role as `role`, our service as
# one of `roles`.
package model_training

default allow := false

allow if {
	input.action.name == "read"
	input.subject.id in {"alice", "bob"}
}

allow if {
	input.action.name == "write"
	input.subject.id == "alice"
	not input.resource.properties.status == "archived"
}

allow if {
	input.action.name == "write"
	is_admin
}

allow if {
	input.action.name == "delete"
	input.subject.id == "alice"
	input.action.properties.soft == true
}

is_admin if input.subject.properties.role == "admin"

is_admin if "admin" in input.subject.properties.roles
