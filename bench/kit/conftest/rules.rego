package main

import rego.v1

workloads := {"Deployment", "StatefulSet", "DaemonSet", "Job"}

pod := input.spec.template.spec if input.kind in workloads

containers contains container if some container in pod.containers

containers contains container if some container in pod.initContainers

name := sprintf("%s %s", [input.kind, input.metadata.name])

deny_labels contains msg if {
	some label in ["app", "team"]
	not input.metadata.labels[label]
	msg := sprintf("%s has no label %s", [name, label])
}

deny_registry contains msg if {
	some container in containers
	not startswith(container.image, "registry.example.com/")
	msg := sprintf("%s takes %s from elsewhere", [name, container.image])
}

deny_privileged contains msg if {
	some container in containers
	container.securityContext.privileged
	msg := sprintf("%s has the privileged container %s", [name, container.name])
}

deny_host_namespaces contains msg if {
	some field in ["hostNetwork", "hostPID", "hostIPC"]
	pod[field]
	msg := sprintf("%s uses %s", [name, field])
}

deny_limits contains msg if {
	some container in containers
	not container.resources.limits.memory
	msg := sprintf("%s: %s has no memory limit", [name, container.name])
}

deny_tags contains msg if {
	some container in containers
	endswith(container.image, ":latest")
	msg := sprintf("%s: %s is not pinned", [name, container.image])
}

deny_replicas contains msg if {
	input.kind == "Deployment"
	input.spec.replicas < 2
	msg := sprintf("%s has %d replicas", [name, input.spec.replicas])
}

deny_capabilities contains msg if {
	some container in containers
	not "ALL" in object.get(container, ["securityContext", "capabilities", "drop"], [])
	msg := sprintf("%s: %s keeps capabilities", [name, container.name])
}

deny_escalation contains msg if {
	some container in containers
	container.securityContext.allowPrivilegeEscalation != false
	msg := sprintf("%s: %s may escalate", [name, container.name])
}

deny_readonly contains msg if {
	some container in containers
	not container.securityContext.readOnlyRootFilesystem
	msg := sprintf("%s: %s writes to its root", [name, container.name])
}

deny_nonroot contains msg if {
	input.kind in workloads
	not pod.securityContext.runAsNonRoot
	msg := sprintf("%s may run as root", [name])
}

deny_service contains msg if {
	input.kind == "Service"
	input.spec.type in {"NodePort", "LoadBalancer"}
	msg := sprintf("%s is of type %s", [name, input.spec.type])
}

deny_hostpath contains msg if {
	some volume in pod.volumes
	volume.hostPath
	msg := sprintf("%s mounts %s", [name, volume.hostPath.path])
}
