package countersign.object

import rego.v1

# METADATA
# title: Nothing replaces the gate’s own webhook
# description: A webhook configuration of the gate’s name, or one that only comes into play for its objects, would switch it off.
# custom:
#   rule: gate-webhook
#   severity: critical
#   controls: [CC6.1, CC8.1]
#   remediation: leave the gate’s configuration to the gate
deny contains {"rule": "gate-webhook", "message": sprintf("`%s` is the gate’s own name", [input.object.metadata.name]), "path": ["metadata", "name"]} if {
	input.object.kind in webhook_kinds
	startswith(input.object.metadata.name, "countersign")
}

webhook_kinds := {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}

# METADATA
# title: Nothing takes over the gate’s API group
# description: A CustomResourceDefinition or APIService for countersign.dev decides what the gate is told.
# custom:
#   rule: gate-api
#   severity: critical
#   controls: [CC6.1, CC8.1]
#   remediation: install the gate’s own definitions with the gate
deny contains {"rule": "gate-api", "message": "it defines the gate’s API group", "path": ["spec", "group"]} if {
	input.object.kind in {"CustomResourceDefinition", "APIService"}
	input.object.spec.group == "countersign.dev"
}

# METADATA
# title: Roles do not let the gate be switched off
# description: Anyone who changes webhook configurations, admission policies or the gate’s documents can let anything run.
# custom:
#   rule: gate-rbac
#   severity: critical
#   controls: [CC6.1, CC8.1]
#   remediation: remove the resource from the role
deny contains {"rule": "gate-rbac", "message": sprintf("it allows `%s` of `%s`", [verb, resource]), "path": ["rules", i]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	some resource in rule.resources
	gate_resource(resource, rule)
	some verb in rule.verbs
	not verb in {"get", "list", "watch"}
}

gate_resource(resource, _) if resource in {"validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"}

gate_resource(_, rule) if "countersign.dev" in rule.apiGroups

# METADATA
# title: Webhooks leave the cluster a way out
# description: A webhook that fails closed for every resource and namespace can stop the cluster, the gate and itself from coming back.
# custom:
#   rule: webhook-scope
#   severity: high
#   controls: [A1.2]
#   remediation: add a `namespaceSelector` that leaves out kube-system, or name the resources
deny contains {"rule": "webhook-scope", "message": sprintf("`%s` fails closed for `%s` in every namespace", [webhook.name, resource]), "path": ["webhooks", i]} if {
	input.object.kind in {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"}
	some i, webhook in input.object.webhooks
	object.get(webhook, "failurePolicy", "Fail") == "Fail"
	object.get(webhook, "namespaceSelector", {}) == {}
	object.get(webhook, "objectSelector", {}) == {}
	some rule in webhook.rules
	some resource in rule.resources
	resource in {"*", "*/*", "pods", "leases", "nodes"}
}
