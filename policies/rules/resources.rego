package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Containers have limits
# description: A container without limits can starve everything else on its node. The parameter `requiredLimits` names them; memory by default.
# custom:
#   rule: resource-limits
#   severity: medium
#   controls: [A1.2]
#   remediation: set the limit under `resources.limits`
deny contains {"rule": "resource-limits", "message": sprintf("the container `%s` has no limit for %s", [item.container.name, resource]), "path": array.concat(item.path, ["resources", "limits"])} if {
	some item in lib.containers
	not item.ephemeral
	some resource in lib.parameter("requiredLimits", ["memory"])
	not object.get(item.container, ["resources", "limits", resource], false)
}

# METADATA
# title: Containers ask for what they need
# description: Without requests the scheduler puts too much on one node. The parameter `requiredRequests` names them; none by default.
# custom:
#   rule: resource-requests
#   severity: low
#   controls: [A1.2]
#   remediation: set the request under `resources.requests`
warn contains {"rule": "resource-requests", "message": sprintf("the container `%s` has no request for %s", [item.container.name, resource]), "path": array.concat(item.path, ["resources", "requests"])} if {
	some item in lib.containers
	not item.ephemeral
	some resource in lib.parameter("requiredRequests", [])
	not object.get(item.container, ["resources", "requests", resource], false)
}

# METADATA
# title: Long-running containers say when they are ready
# description: Without a readiness probe a rollout counts as done before the workload answers.
# custom:
#   rule: readiness-probe
#   severity: low
#   controls: [A1.2]
#   remediation: add `readinessProbe`
warn contains {"rule": "readiness-probe", "message": sprintf("the container `%s` has no readiness probe", [container.name]), "path": ["spec", "template", "spec", "containers", i]} if {
	input.object.kind in {"Deployment", "StatefulSet", "DaemonSet"}
	some i, container in lib.pod.containers
	object.get(container, "readinessProbe", null) == null
}

# METADATA
# title: Deployments survive the loss of a pod
# description: The parameter `minimumReplicas` says how many replicas a Deployment has at least; 1 by default.
# custom:
#   rule: minimum-replicas
#   severity: low
#   controls: [A1.2]
#   remediation: raise `spec.replicas`
warn contains {"rule": "minimum-replicas", "message": sprintf("it has %v of %v replicas", [have, needed]), "path": ["spec", "replicas"]} if {
	input.object.kind == "Deployment"
	have := object.get(input.object, ["spec", "replicas"], 1)
	needed := lib.parameter("minimumReplicas", 1)
	have < needed
}
