package countersign.change

import data.countersign.lib
import rego.v1

# METADATA
# title: Changes to access need a second approver
# description: The parameter `rbacApprovers` says how many people must approve a change that touches RBAC; 2 by default. With `rbacGroup` they must be of that group.
# custom:
#   rule: rbac-approvers
#   severity: high
#   controls: [CC6.2, CC6.3]
#   remediation: ask one more person for `countersign approve`
deny contains {"rule": "rbac-approvers", "message": sprintf("the change touches %s `%s` and has %d of %d approvers", [object.kind, object.name, have, needed]), "path": []} if {
	some object in input.change.objects
	object.kind in rbac_kinds
	needed := lib.parameter("rbacApprovers", 2)
	have := count(approvers_of(lib.parameter("rbacGroup", "")))
	have < needed
}

rbac_kinds := {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"}

approvers_of("") := {name | some name in input.change.approvers}

approvers_of(group) := {approval.principal | some approval in input.change.approvals; group in approval.groups} if group != ""

# METADATA
# title: Approvals are as strong as they must be
# description: The parameter `minimumEvidence` (`A+`, `A` or `B`) says how strong each approval must be at least; any will do by default.
# custom:
#   rule: evidence-class
#   severity: medium
#   controls: [CC8.1]
#   remediation: approve with `countersign approve`, and a hardware key for A+
deny contains {"rule": "evidence-class", "message": sprintf("the approval of `%s` is of class %s, and %s is asked for", [approval.principal, approval.class, wanted]), "path": []} if {
	wanted := lib.parameter("minimumEvidence", "C")
	some approval in input.change.approvals
	strength[approval.class] < strength[wanted]
}

strength := {"A+": 3, "A": 2, "B": 1, "C": 0}

# METADATA
# title: Nothing changes on frozen days
# description: The parameter `frozenDays` lists days of the week (in UTC) on which only rollbacks pass; none by default.
# custom:
#   rule: frozen-days
#   severity: low
#   controls: [CC8.1]
#   remediation: wait, or roll back
deny contains {"rule": "frozen-days", "message": sprintf("today is %s, and changes are frozen", [input.change.weekday]), "path": []} if {
	input.change.weekday in lib.parameter("frozenDays", [])
	not input.change.rollback
}

# METADATA
# title: Changes stay small enough to review
# description: The parameter `maxPaths` says how many files a change may touch before a warning; 100 by default.
# custom:
#   rule: large-change
#   severity: low
#   controls: [CC8.1]
#   remediation: split it, so that approvers can read it
warn contains {"rule": "large-change", "message": sprintf("the change touches %d files", [touched]), "path": []} if {
	touched := count(input.change.paths)
	touched > lib.parameter("maxPaths", 100)
}

# METADATA
# title: Deletions are few
# description: The parameter `maxDeletions` says how many objects a change may remove before a warning; 10 by default.
# custom:
#   rule: many-deletions
#   severity: medium
#   controls: [CC8.1]
#   remediation: look at the list, and split the change where it is meant
warn contains {"rule": "many-deletions", "message": sprintf("the change removes %d objects", [gone]), "path": []} if {
	gone := count([object | some object in input.change.objects; object.action == "delete"])
	gone > lib.parameter("maxDeletions", 10)
}

# METADATA
# title: Removed volumes are seen
# description: Removing a PersistentVolumeClaim or PersistentVolume can remove its data.
# custom:
#   rule: data-deletions
#   severity: high
#   controls: [A1.2]
#   remediation: make sure of a backup before it is approved
warn contains {"rule": "data-deletions", "message": sprintf("the change removes %s `%s`", [object.kind, object.name]), "path": []} if {
	some object in input.change.objects
	object.action == "delete"
	object.kind in {"PersistentVolumeClaim", "PersistentVolume", "StatefulSet"}
}
