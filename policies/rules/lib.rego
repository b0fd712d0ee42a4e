# The pod of every kind of object that makes pods, and the way to it.
package countersign.lib

import rego.v1

templated := {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"}

pod_path := ["spec"] if input.object.kind == "Pod"

pod_path := ["spec", "template", "spec"] if input.object.kind in templated

pod_path := ["spec", "jobTemplate", "spec", "template", "spec"] if input.object.kind == "CronJob"

pod := object.get(input.object, pod_path, {})

containers contains {"container": container, "path": array.concat(pod_path, [field, i])} if {
	some field in ["initContainers", "containers", "ephemeralContainers"]
	some i, container in object.get(pod, field, [])
}

parameter(name, otherwise) := object.get(object.get(input, "parameters", {}), name, otherwise)
