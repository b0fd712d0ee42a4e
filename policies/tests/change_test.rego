package countersign.change_test

import data.countersign.change as rules
import rego.v1

role := {"kind": "Role", "name": "admin"}

denied(change, parameters) := {finding.rule | some finding in rules.deny with input as {"change": change, "parameters": parameters}}

test_rbac_with_one_approver_is_denied if denied({"objects": [role], "approvers": ["lee"], "paths": []}, {}) == {"rbac-approvers"}

test_rbac_with_two_approvers_passes if denied({"objects": [role], "approvers": ["lee", "kim"], "paths": []}, {}) == set()

test_the_number_can_be_set if denied({"objects": [role], "approvers": ["lee"], "paths": []}, {"rbacApprovers": 1}) == set()

test_other_kinds_pass if denied({"objects": [{"kind": "ConfigMap", "name": "a"}], "approvers": [], "paths": []}, {}) == set()

test_a_large_change_is_warned_of if {
	some finding in rules.warn with input as {"change": {"objects": [], "approvers": [], "paths": numbers.range(1, 101)}}
	finding.rule == "large-change"
}

test_a_small_change_is_not if count(rules.warn) == 0 with input as {"change": {"objects": [], "approvers": [], "paths": ["a"]}}
