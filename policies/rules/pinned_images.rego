package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Images are pinned
# description: An image without a fixed tag or digest can change without a commit. With the parameter requireDigest, only digests will do.
# custom:
#   rule: pinned-images
#   severity: high
#   controls: [CC8.1]
deny contains {
	"rule": "pinned-images",
	"severity": "high",
	"message": sprintf("the image `%s` of the container `%s` is not pinned", [item.container.image, item.container.name]),
	"path": array.concat(item.path, ["image"]),
	"hint": pinned_hint,
} if {
	some item in lib.containers
	not pinned(item.container.image)
}

pinned_hint := "name the image by its digest, `name@sha256:…`" if lib.parameter("requireDigest", false)

else := "name a tag other than `latest`, or a digest"

pinned(image) if contains(image, "@sha256:")

pinned(image) if {
	not lib.parameter("requireDigest", false)
	parts := split(image, "/")
	name := split(parts[count(parts) - 1], ":")
	count(name) == 2
	name[1] != "latest"
	name[1] != ""
}
