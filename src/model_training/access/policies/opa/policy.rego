# Who may do what with the training service: a policy to start from.
#
# What is not permitted here is refused. The roles, what they allow and who has them stand in
# data.json, which is what to change; this file says how they are read.
#
# The service asks for data.model_training.allow, the setting decisions.path of its access file.
package model_training

default allow := false

# The service as a whole: listing jobs of all pipelines, metrics, the description of the API.
allow if {
	input.resource.type == "training_service"
	some role in held
	input.action.name in data.roles[role].service
}

# Listing pipelines. Each of them is asked about by itself then.
allow if {
	input.resource.type == "training_pipeline"
	input.resource.properties.all == true
	some _ in rules
}

# A pipeline: its jobs are listed or created, or it is looked at.
allow if {
	input.resource.type == "training_pipeline"
	not input.resource.properties.all
	some rule in rules
	is_of(rule, input.resource.id)
}

# A job is of its pipeline.
allow if {
	input.resource.type == "training_job"
	some rule in rules
	is_of(rule, input.resource.properties.pipeline)
	is_by(rule, input.resource.properties.owner)
}

# The roles of whoever asks: theirs by name, those of their groups, and those of the roles that
# whoever vouches for them says they have. A group or role counts with the name of who vouches for
# it, so that one issuer cannot lend another its groups.
held contains binding.role if {
	some binding in data.bindings
	input.subject.id in binding.principals
}

held contains binding.role if {
	some binding in data.bindings
	some group in input.subject.properties.groups
	vouched(group) in binding.groups
}

held contains binding.role if {
	some binding in data.bindings
	some role in input.subject.properties.roles
	vouched(role) in binding.roles
}

vouched(name) := sprintf("%s/%s", [input.subject.properties.issuer, name])

# The rules of these roles about what would be done.
rules contains rule if {
	some role in held
	some rule in data.roles[role].allow
	some action in rule.actions
	action in {"*", input.action.name}
}

is_of(rule, pipeline) if {
	some pattern in rule.pipelines
	glob.match(pattern, null, pipeline)
}

is_by(rule, _) if not "owner" in object.keys(rule)

is_by(rule, owner) if {
	rule.owner == "self"
	owner == input.subject.id
}
