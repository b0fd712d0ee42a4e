package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Images come from allowed registries
# description: The parameter allowedRegistries lists the registries (or registry/path) images may come from; without it any will do.
# custom:
#   rule: allowed-registries
#   severity: high
#   controls: [CC6.8]
deny contains {
	"rule": "allowed-registries",
	"severity": "high",
	"message": sprintf("the image `%s` of the container `%s` is not from an allowed registry", [item.container.image, item.container.name]),
	"path": array.concat(item.path, ["image"]),
	"hint": sprintf("use an image from %s", [concat(", ", allowed)]),
} if {
	allowed := lib.parameter("allowedRegistries", [])
	count(allowed) > 0
	some item in lib.containers
	not from_any(item.container.image, allowed)
}

from_any(image, allowed) if {
	some registry in allowed
	startswith(image, concat("", [trim_suffix(registry, "/"), "/"]))
}
