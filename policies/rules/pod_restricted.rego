package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Pods use only volumes that belong to them
# description: "Other kinds of volumes reach the node or the network around the cluster. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: volume-types
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: use a ConfigMap, Secret, emptyDir, projected volume or PersistentVolumeClaim
deny contains {"rule": "volume-types", "message": sprintf("the volume `%s` is of the kind %s", [volume.name, kind]), "path": array.concat(lib.pod_path, ["volumes", i, kind])} if {
	lib.restricted
	some i, volume in lib.pod.volumes
	some kind in object.keys(volume)
	not kind in {"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
}

# METADATA
# title: Containers cannot gain privileges
# description: "Otherwise a process may get more rights than its parent, by setuid programs for example. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: privilege-escalation
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: "set `allowPrivilegeEscalation: false`"
deny contains {"rule": "privilege-escalation", "message": sprintf("the container `%s` may gain privileges", [item.container.name]), "path": array.concat(item.path, ["securityContext", "allowPrivilegeEscalation"])} if {
	lib.restricted
	some item in lib.containers
	object.get(item.container, ["securityContext", "allowPrivilegeEscalation"], true) != false
}

# METADATA
# title: Containers do not run as root
# description: "Root in a container is one fault away from root on the node. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: run-as-non-root
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: "set `runAsNonRoot: true` on the pod or the container"
deny contains {"rule": "run-as-non-root", "message": sprintf("the container `%s` may run as root", [item.container.name]), "path": array.concat(item.path, ["securityContext", "runAsNonRoot"])} if {
	lib.restricted
	some item in lib.containers
	not non_root(item.container)
}

non_root(container) if container.securityContext.runAsNonRoot == true

non_root(container) if {
	not "runAsNonRoot" in object.keys(object.get(container, "securityContext", {}))
	lib.pod.securityContext.runAsNonRoot == true
}

# METADATA
# title: No container runs as user 0
# description: "A runAsUser of 0 is root. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: run-as-user
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: choose another user
deny contains {"rule": "run-as-user", "message": sprintf("%s runs as user 0", [context.name]), "path": array.concat(context.path, ["runAsUser"])} if {
	lib.restricted
	some context in lib.contexts
	context.value.runAsUser == 0
}

# METADATA
# title: Seccomp is switched on
# description: "The runtime’s profile keeps a container from the system calls it does not need. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: seccomp-required
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: "set `seccompProfile: {type: RuntimeDefault}` on the pod"
deny contains {"rule": "seccomp-required", "message": sprintf("the container `%s` has no seccomp profile", [item.container.name]), "path": array.concat(item.path, ["securityContext", "seccompProfile"])} if {
	lib.restricted
	some item in lib.containers
	not object.get(item.container, ["securityContext", "seccompProfile", "type"], pod_seccomp) in {"RuntimeDefault", "Localhost"}
}

pod_seccomp := object.get(lib.pod, ["securityContext", "seccompProfile", "type"], "")

# METADATA
# title: Containers drop every capability
# description: "What is needed is added again by name. Asked for with the parameter `podSecurity: restricted`."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: capabilities-dropped
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: "set `capabilities: {drop: [ALL]}`"
deny contains {"rule": "capabilities-dropped", "message": sprintf("the container `%s` keeps capabilities", [item.container.name]), "path": array.concat(item.path, ["securityContext", "capabilities", "drop"])} if {
	lib.restricted
	some item in lib.containers
	not "ALL" in object.get(item.container, ["securityContext", "capabilities", "drop"], [])
}
