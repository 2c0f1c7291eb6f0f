import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Optional;
import org.ow2.authzforce.core.pdp.api.AttributeFqn;
import org.ow2.authzforce.core.pdp.api.AttributeFqns;
import org.ow2.authzforce.core.pdp.api.DecisionRequestBuilder;
import org.ow2.authzforce.core.pdp.api.value.Bags;
import org.ow2.authzforce.core.pdp.api.value.StandardDatatypes;
import org.ow2.authzforce.core.pdp.api.value.StringValue;
import org.ow2.authzforce.core.pdp.impl.BasePdpEngine;
import org.ow2.authzforce.core.pdp.impl.PdpEngineConfiguration;

/**
 * Decides by the policy of a settings file: a question a line, which is subject, resource and
 * action with tabs between them; a verdict a line.
 */
class Decide {
    private static final String SUBJECT = "urn:oasis:names:tc:xacml:1.0:subject-category:access-subject";
    private static final String OTHERS = "urn:oasis:names:tc:xacml:3.0:attribute-category:";
    private static final String IDS = "urn:oasis:names:tc:xacml:1.0:";

    public static void main(String[] arguments) throws Exception {
        var engine = new BasePdpEngine(PdpEngineConfiguration.getInstance(arguments[0]));
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            var words = line.split("\t", -1);
            var question = engine.newRequestBuilder(-1, -1);
            tell(question, SUBJECT, "subject:subject-id", words[0]);
            tell(question, OTHERS + "resource", "resource:resource-id", words[1]);
            tell(question, OTHERS + "action", "action:action-id", words[2]);
            System.out.println(engine.evaluate(question.build(false)).getDecision());
        }
    }

    private static void tell(
            DecisionRequestBuilder<?> question, String category, String id, String text) {
        AttributeFqn name = AttributeFqns.newInstance(category, Optional.empty(), IDS + id);
        var value = Bags.singletonAttributeBag(StandardDatatypes.STRING, new StringValue(text));
        question.putNamedAttributeIfAbsent(name, value);
    }
}
