package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Long-running containers say when they are ready
# description: Without a readiness probe a rollout counts as done before the workload answers.
# custom:
#   rule: readiness-probe
#   severity: low
#   controls: [A1.2]
warn contains {
	"rule": "readiness-probe",
	"severity": "low",
	"message": sprintf("the container `%s` has no readiness probe", [container.name]),
	"path": ["spec", "template", "spec", "containers", i],
	"hint": "add `readinessProbe`",
} if {
	input.object.kind in {"Deployment", "StatefulSet", "DaemonSet"}
	some i, container in lib.pod.containers
	not container.readinessProbe
}
