package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Images come from allowed registries
# description: The parameter `allowedRegistries` lists the registries (or registry/path) images may come from; without it any will do.
# custom:
#   rule: allowed-registries
#   severity: high
#   controls: [CC6.8]
#   remediation: use an image from one of the allowed registries
deny contains {"rule": "allowed-registries", "message": sprintf("the image `%s` of the container `%s` is not from %s", [item.container.image, item.container.name, concat(", ", allowed)]), "path": array.concat(item.path, ["image"])} if {
	allowed := lib.parameter("allowedRegistries", [])
	count(allowed) > 0
	some item in lib.containers
	not from_any(item.container.image, allowed)
}

from_any(image, allowed) if {
	some registry in allowed
	startswith(image, concat("", [trim_suffix(registry, "/"), "/"]))
}

# METADATA
# title: Images are pinned
# description: An image without a fixed tag or digest can change without a commit. With the parameter `requireDigest`, only digests will do.
# custom:
#   rule: pinned-images
#   severity: high
#   controls: [CC8.1]
#   remediation: name a tag other than `latest`, or a digest (`name@sha256:…`)
deny contains {"rule": "pinned-images", "message": sprintf("the image `%s` of the container `%s` is not pinned", [item.container.image, item.container.name]), "path": array.concat(item.path, ["image"])} if {
	some item in lib.containers
	not pinned(item.container.image)
}

pinned(image) if contains(image, "@sha256:")

pinned(image) if {
	not lib.parameter("requireDigest", false)
	parts := split(image, "/")
	name := split(parts[count(parts) - 1], ":")
	count(name) == 2
	not name[1] in {"", "latest"}
}
