package countersign.object

import rego.v1

# METADATA
# title: Roles name what they allow
# description: A star also allows what does not exist yet.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-wildcards
#   severity: high
#   controls: [CC6.1, CC6.3]
#   remediation: list the verbs, resources and groups that are needed
deny contains {"rule": "rbac-wildcards", "message": sprintf("it allows every one of `%s`", [field]), "path": ["rules", i, field]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	some field in ["verbs", "resources", "apiGroups"]
	"*" in object.get(rule, field, [])
}

role_kinds := {"Role", "ClusterRole"}

# METADATA
# title: No binding grants cluster-admin
# description: The role can do everything, changing this gate included.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-cluster-admin
#   severity: critical
#   controls: [CC6.1, CC6.3]
#   remediation: bind a role that allows what is needed
deny contains {"rule": "rbac-cluster-admin", "message": sprintf("it binds to `%s`", [input.object.roleRef.name]), "path": ["roleRef"]} if {
	input.object.kind in binding_kinds
	input.object.roleRef.name in {"cluster-admin", "system:masters"}
}

binding_kinds := {"RoleBinding", "ClusterRoleBinding"}

# METADATA
# title: Roles do not allow escalation
# description: With `escalate`, `bind` or `impersonate` a subject gives itself any other right.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-escalation
#   severity: critical
#   controls: [CC6.1, CC6.3]
#   remediation: remove the verb
deny contains {"rule": "rbac-escalation", "message": sprintf("it allows `%s`", [verb]), "path": ["rules", i, "verbs"]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	some verb in rule.verbs
	verb in {"escalate", "bind", "impersonate"}
}

# METADATA
# title: Secrets are read by name
# description: Anyone who may get, list or watch every Secret has the rights of every account in them.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-secrets
#   severity: high
#   controls: [CC6.1, CC6.3]
#   remediation: name the secrets in `resourceNames`, and leave out `list` and `watch`
deny contains {"rule": "rbac-secrets", "message": sprintf("it allows `%s` of every Secret", [verb]), "path": ["rules", i]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	"secrets" in rule.resources
	some verb in rule.verbs
	reads_all(verb, rule)
}

reads_all(verb, _) if verb in {"list", "watch"}

reads_all("get", rule) if count(object.get(rule, "resourceNames", [])) == 0

# METADATA
# title: No role may run commands in pods
# description: "`pods/exec`, `pods/attach` and `pods/portforward` are ways around every review of what runs."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-exec
#   severity: high
#   controls: [CC6.1, CC6.3]
#   remediation: remove the resource
deny contains {"rule": "rbac-exec", "message": sprintf("it allows `%s`", [resource]), "path": ["rules", i, "resources"]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	some resource in rule.resources
	resource in {"pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers", "nodes/proxy"}
}

# METADATA
# title: No role may make tokens for other accounts
# description: With `serviceaccounts/token` a subject becomes any account of the namespace; with certificate approval, any user.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-tokens
#   severity: high
#   controls: [CC6.1, CC6.3]
#   remediation: remove the resource
deny contains {"rule": "rbac-tokens", "message": sprintf("it allows `%s`", [resource]), "path": ["rules", i, "resources"]} if {
	input.object.kind in role_kinds
	some i, rule in input.object.rules
	some resource in rule.resources
	resource in {"serviceaccounts/token", "certificatesigningrequests/approval"}
}

# METADATA
# title: Nothing is bound to anonymous users
# description: Anyone who reaches the API server then has the right.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
# custom:
#   rule: rbac-anonymous
#   severity: critical
#   controls: [CC6.1, CC6.3]
#   remediation: bind to a user, group or service account
deny contains {"rule": "rbac-anonymous", "message": sprintf("it binds to `%s`", [subject.name]), "path": ["subjects", i]} if {
	input.object.kind in binding_kinds
	some i, subject in input.object.subjects
	subject.name in {"system:anonymous", "system:unauthenticated"}
}
