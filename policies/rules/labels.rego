package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Workloads carry the required labels
# description: The parameter `requiredLabels` lists the labels every workload must have, so that someone answers for it.
# custom:
#   rule: required-labels
#   severity: low
#   controls: [CC2.1]
#   remediation: add the label to `metadata.labels`
deny contains {"rule": "required-labels", "message": sprintf("the label `%s` is missing", [label]), "path": ["metadata", "labels"]} if {
	lib.pod_path
	some label in lib.parameter("requiredLabels", [])
	object.get(input.object, ["metadata", "labels", label], "") == ""
}
