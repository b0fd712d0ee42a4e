package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Pods do not share the node's namespaces
# description: With the host's network, processes or IPC a pod sees and reaches what other workloads do.
# custom:
#   rule: host-namespaces
#   severity: high
#   controls: [CC6.1, CC6.8]
deny contains {
	"rule": "host-namespaces",
	"severity": "high",
	"message": sprintf("the pod uses `%s`", [field]),
	"path": array.concat(lib.pod_path, [field]),
	"hint": sprintf("remove `%s`", [field]),
} if {
	some field in ["hostNetwork", "hostPID", "hostIPC"]
	lib.pod[field] == true
}
