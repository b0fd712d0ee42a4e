package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Containers are not privileged
# description: A privileged container has every right of the node it runs on.
# custom:
#   rule: privileged
#   severity: critical
#   controls: [CC6.1, CC6.8]
deny contains {
	"rule": "privileged",
	"severity": "critical",
	"message": sprintf("the container `%s` is privileged", [item.container.name]),
	"path": array.concat(item.path, ["securityContext", "privileged"]),
	"hint": "remove `privileged`, and add single capabilities where they are needed",
} if {
	some item in lib.containers
	item.container.securityContext.privileged == true
}
