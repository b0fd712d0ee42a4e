# The pod of every kind of object that makes pods, and the way to it.
package countersign.lib

import rego.v1

templated := {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"}

pod_path := ["spec"] if input.object.kind == "Pod"

pod_path := ["template", "spec"] if input.object.kind == "PodTemplate"

pod_path := ["spec", "template", "spec"] if input.object.kind in templated

pod_path := ["spec", "jobTemplate", "spec", "template", "spec"] if input.object.kind == "CronJob"

pod := object.get(input.object, pod_path, {})

# Lists, not sets: a set would hash every container whole.
containers := [{"container": container, "path": array.concat(pod_path, [field, i]), "ephemeral": field == "ephemeralContainers"} |
	some field in ["initContainers", "containers", "ephemeralContainers"]
	some i, container in object.get(pod, field, [])
]

# The security context of the pod and of each of its containers.
contexts := array.concat(pod_contexts, container_contexts)

pod_contexts := [{"name": "the pod", "value": pod.securityContext, "path": array.concat(pod_path, ["securityContext"])} | pod.securityContext]

container_contexts := [{"name": concat("", ["the container `", item.container.name, "`"]), "value": item.container.securityContext, "path": array.concat(item.path, ["securityContext"])} |
	some item in containers
	item.container.securityContext
]

parameter(name, otherwise) := object.get(object.get(input, "parameters", {}), name, otherwise)

restricted if parameter("podSecurity", "baseline") == "restricted"
