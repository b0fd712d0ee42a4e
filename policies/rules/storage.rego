package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Persistent volumes are not directories of a node
# description: A PersistentVolume with hostPath or local is the node’s disk under another name.
# custom:
#   rule: volume-on-node
#   severity: high
#   controls: [CC6.1, CC6.8]
#   remediation: use a storage class
deny contains {"rule": "volume-on-node", "message": sprintf("it is a `%s` of a node", [kind]), "path": ["spec", kind]} if {
	input.object.kind == "PersistentVolume"
	some kind in ["hostPath", "local"]
	input.object.spec[kind]
}

# METADATA
# title: Storage outlives its claim
# description: "With the reclaim policy Delete, removing a claim removes the data. Asked for with the parameter `retainStorage: true`."
# custom:
#   rule: storage-reclaim
#   severity: low
#   controls: [A1.2]
#   remediation: set the reclaim policy to Retain
warn contains {"rule": "storage-reclaim", "message": "its data is deleted with the claim", "path": ["reclaimPolicy"]} if {
	lib.parameter("retainStorage", false)
	input.object.kind in {"StorageClass", "PersistentVolume"}
	reclaim == "Delete"
}

reclaim := object.get(input.object, "reclaimPolicy", "Delete") if input.object.kind == "StorageClass"

reclaim := object.get(input.object, ["spec", "persistentVolumeReclaimPolicy"], "Retain") if input.object.kind == "PersistentVolume"

# METADATA
# title: Claims stay within their size
# description: The parameter `maximumClaim` says how much one PersistentVolumeClaim may ask for; no limit by default.
# custom:
#   rule: claim-size
#   severity: low
#   controls: [A1.1]
#   remediation: ask for less, or raise the parameter by an approved change
deny contains {"rule": "claim-size", "message": sprintf("it asks for %s, and %s is the limit", [asked, limit]), "path": ["spec", "resources", "requests", "storage"]} if {
	input.object.kind == "PersistentVolumeClaim"
	limit := lib.parameter("maximumClaim", "")
	limit != ""
	asked := input.object.spec.resources.requests.storage
	units.parse(asked) > units.parse(limit)
}
