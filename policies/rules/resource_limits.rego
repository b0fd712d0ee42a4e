package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Containers have limits
# description: A container without limits can starve everything else on its node.
# custom:
#   rule: resource-limits
#   severity: medium
#   controls: [A1.2]
deny contains {
	"rule": "resource-limits",
	"severity": "medium",
	"message": sprintf("the container `%s` has no limit for %s", [item.container.name, resource]),
	"path": array.concat(item.path, ["resources", "limits"]),
	"hint": sprintf("set `resources.limits.%s`", [resource]),
} if {
	some item in lib.containers
	some resource in lib.parameter("requiredLimits", ["memory"])
	not object.get(item.container, ["resources", "limits", resource], false)
}
