package countersign.change

import data.countersign.lib
import rego.v1

rbac_kinds := {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"}

# METADATA
# title: Changes to access need a second approver
# description: The parameter rbacApprovers says how many people must approve a change that touches RBAC; 2 by default.
# custom:
#   rule: rbac-approvers
#   severity: high
#   controls: [CC6.2, CC6.3]
deny contains {
	"rule": "rbac-approvers",
	"severity": "high",
	"message": sprintf("the change touches %s `%s` and has %d of %d approvers", [object.kind, object.name, have, needed]),
	"hint": "ask one more person for `countersign approve`",
} if {
	some object in input.change.objects
	object.kind in rbac_kinds
	needed := lib.parameter("rbacApprovers", 2)
	have := count(input.change.approvers)
	have < needed
}

# METADATA
# title: Changes stay small enough to review
# description: The parameter maxPaths says how many files a change may touch before a warning; 100 by default.
# custom:
#   rule: large-change
#   severity: low
#   controls: [CC8.1]
warn contains {
	"rule": "large-change",
	"severity": "low",
	"message": sprintf("the change touches %d files", [touched]),
	"hint": "split it, so that approvers can read it",
} if {
	touched := count(input.change.paths)
	touched > lib.parameter("maxPaths", 100)
}
