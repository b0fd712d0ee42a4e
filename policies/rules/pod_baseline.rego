package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Containers are not privileged
# description: A privileged container has every right of the node it runs on.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: privileged
#   severity: critical
#   controls: [CC6.1, CC6.8]
#   remediation: remove `privileged`, and add single capabilities where they are needed
deny contains {"rule": "privileged", "message": sprintf("the container `%s` is privileged", [item.container.name]), "path": array.concat(item.path, ["securityContext", "privileged"])} if {
	some item in lib.containers
	item.container.securityContext.privileged == true
}

# METADATA
# title: Pods do not share the node's namespaces
# description: With the host's network, processes or IPC a pod sees and reaches what other workloads do.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: host-namespaces
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: remove `hostNetwork`, `hostPID` and `hostIPC`
deny contains {"rule": "host-namespaces", "message": sprintf("the pod uses `%s`", [field]), "path": array.concat(lib.pod_path, [field])} if {
	some field in ["hostNetwork", "hostPID", "hostIPC"]
	lib.pod[field] == true
}

# METADATA
# title: Windows pods do not run as host processes
# description: A HostProcess container runs on the node itself.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: host-process
#   severity: critical
#   controls: [CC6.1, CC6.8]
#   remediation: remove `windowsOptions.hostProcess`
deny contains {"rule": "host-process", "message": sprintf("%s runs as a host process", [context.name]), "path": array.concat(context.path, ["windowsOptions", "hostProcess"])} if {
	some context in lib.contexts
	context.value.windowsOptions.hostProcess == true
}

# METADATA
# title: Containers add only harmless capabilities
# description: "Capabilities beyond the container runtime’s default open ways to the node; the parameter `podSecurity: restricted` leaves only NET_BIND_SERVICE."
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: capabilities-added
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: remove the capability from `capabilities.add`
deny contains {"rule": "capabilities-added", "message": sprintf("the container `%s` adds the capability %s", [item.container.name, capability]), "path": array.concat(item.path, ["securityContext", "capabilities", "add", i])} if {
	some item in lib.containers
	some i, capability in item.container.securityContext.capabilities.add
	not capability in addable
}

addable := {"NET_BIND_SERVICE"} if lib.restricted

else := {
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

# METADATA
# title: Pods do not mount the node's files
# description: Through a hostPath volume a pod reads and changes what belongs to the node and to other pods.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: host-path
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: use a PersistentVolumeClaim, a ConfigMap or an emptyDir
deny contains {"rule": "host-path", "message": sprintf("the volume `%s` mounts `%s` of the node", [volume.name, object.get(volume.hostPath, "path", "")]), "path": array.concat(lib.pod_path, ["volumes", i, "hostPath"])} if {
	some i, volume in lib.pod.volumes
	volume.hostPath
}

# METADATA
# title: Containers do not take the node's ports
# description: A host port ties a pod to nodes and passes network policies by.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: host-ports
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: remove `hostPort` and use a Service
deny contains {"rule": "host-ports", "message": sprintf("the container `%s` takes the host port %v", [item.container.name, port.hostPort]), "path": array.concat(item.path, ["ports", i, "hostPort"])} if {
	some item in lib.containers
	some i, port in item.container.ports
	object.get(port, "hostPort", 0) != 0
}

# METADATA
# title: AppArmor is not switched off
# description: Only the runtime’s default profile and local ones may take its place.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: app-armor
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: use `RuntimeDefault`, or leave the profile out
deny contains {"rule": "app-armor", "message": sprintf("%s has the AppArmor profile %s", [context.name, profile]), "path": array.concat(context.path, ["appArmorProfile", "type"])} if {
	some context in lib.contexts
	profile := context.value.appArmorProfile.type
	not profile in {"RuntimeDefault", "Localhost"}
}

# METADATA
# title: SELinux options stay within the container types
# description: Other types, users and roles can take confinement away.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: selinux
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: leave `seLinuxOptions` out, or use one of the container types
deny contains {"rule": "selinux", "message": sprintf("%s sets the SELinux %s `%s`", [context.name, problem, context.value.seLinuxOptions[problem]]), "path": array.concat(context.path, ["seLinuxOptions", problem])} if {
	some context in lib.contexts
	some problem in selinux_problems(context.value)
}

selinux_problems(context) := {field |
	some field in ["type", "user", "role"]
	value := context.seLinuxOptions[field]
	value != ""
	not selinux_allowed(field, value)
}

selinux_allowed("type", value) if value in {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

# METADATA
# title: "/proc is masked"
# description: An unmasked /proc shows and changes what belongs to the node.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: proc-mount
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: remove `procMount`
deny contains {"rule": "proc-mount", "message": sprintf("the container `%s` has procMount %s", [item.container.name, mount]), "path": array.concat(item.path, ["securityContext", "procMount"])} if {
	some item in lib.containers
	mount := item.container.securityContext.procMount
	mount != "Default"
}

# METADATA
# title: Seccomp is not switched off
# description: Without seccomp a container may make every system call.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: seccomp-unconfined
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: use `RuntimeDefault`
deny contains {"rule": "seccomp-unconfined", "message": sprintf("%s runs without seccomp", [context.name]), "path": array.concat(context.path, ["seccompProfile", "type"])} if {
	some context in lib.contexts
	context.value.seccompProfile.type == "Unconfined"
}

# METADATA
# title: Pods set only safe sysctls
# description: Other kernel settings reach beyond the pod.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: sysctls
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: remove the sysctl
deny contains {"rule": "sysctls", "message": sprintf("the pod sets the sysctl `%s`", [setting.name]), "path": array.concat(lib.pod_path, ["securityContext", "sysctls", i])} if {
	some i, setting in lib.pod.securityContext.sysctls
	not setting.name in safe_sysctls
}

safe_sysctls := {
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
	"net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

# METADATA
# title: Probes ask the pod itself
# description: A probe with a host makes the node send requests for the author of the manifest.
# related_resources:
#   - https://kubernetes.io/docs/concepts/security/pod-security-standards/
# custom:
#   rule: probe-host
#   severity: medium
#   controls: [CC6.1, CC6.8]
#   remediation: remove `host` from the probe
deny contains {"rule": "probe-host", "message": sprintf("the container `%s` has `%s`", [item.container.name, concat(".", at)]), "path": array.concat(item.path, at)} if {
	some item in lib.containers
	some at in probe_hosts
	object.get(item.container, at, "") != ""
}

probe_hosts := {array.concat(hook, [kind, "host"]) |
	some hook in [["livenessProbe"], ["readinessProbe"], ["startupProbe"], ["lifecycle", "postStart"], ["lifecycle", "preStop"]]
	some kind in ["httpGet", "tcpSocket"]
}
