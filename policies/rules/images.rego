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

# METADATA
# title: Images are signed by known signers
# description: The parameter `imageSigners` lists signers of images, as the TrustPolicy names them (`spec.images.signers`), of which one must have said something of each image, by its digest. Without it nothing is asked.
# custom:
#   rule: signed-images
#   severity: critical
#   controls: [CC6.8, CC8.1]
#   remediation: name the image by its digest, and commit what its signer says of it under `countersign/images` (`cosign … --bundle`, `gh attestation download`)
deny contains {"rule": "signed-images", "message": sprintf("nobody of %s has signed the image `%s` of the container `%s`", [concat(", ", signers), item.container.image, item.container.name]), "path": array.concat(item.path, ["image"])} if {
	signers := lib.parameter("imageSigners", [])
	count(signers) > 0
	some item in lib.containers
	not signed(item.container.image, signers)
}

signed(image, signers) if {
	some evidence in evidence_of(image)
	evidence.signer in signers
}

# METADATA
# title: Images are built from known sources
# description: The parameter `imageSources` lists repositories (or what they begin with), of which one must be the source in the SLSA provenance of each image. With `imageSigners`, only provenance of those counts. Without it nothing is asked.
# custom:
#   rule: image-provenance
#   severity: critical
#   controls: [CC6.8, CC8.1]
#   remediation: build the image where its provenance is attested, and commit that under `countersign/images`
deny contains {"rule": "image-provenance", "message": sprintf("no provenance says that the image `%s` of the container `%s` was built from %s", [item.container.image, item.container.name, concat(", ", sources)]), "path": array.concat(item.path, ["image"])} if {
	sources := lib.parameter("imageSources", [])
	count(sources) > 0
	some item in lib.containers
	not built_from(item.container.image, sources)
}

built_from(image, sources) if {
	some evidence in evidence_of(image)
	startswith(evidence.predicateType, "https://slsa.dev/provenance/")
	counts(evidence.signer, lib.parameter("imageSigners", []))
	some source in sources_of(evidence.predicate)
	some wanted in sources
	within_source(trim_prefix(source, "git+"), trim_suffix(wanted, "/"))
}

counts(_, signers) if count(signers) == 0

counts(signer, signers) if signer in signers

# A repository, what is below it, or a revision of it: never another that begins alike.
within_source(source, wanted) if {
	startswith(source, wanted)
	regex.match(`^(\.git)?($|[/@#])`, substring(source, count(wanted), -1))
}

# The source as GitHub's builder of SLSA 1 puts it, as others do, and as SLSA 0.2 had it.
sources_of(predicate) := {source |
	some path in ["buildDefinition/externalParameters/workflow/repository", "buildDefinition/externalParameters/source", "invocation/configSource/uri"]
	source := object.get(predicate, split(path, "/"), "")
}

evidence_of(image) := object.get(object.get(input, "images", {}), split(image, "@")[1], [])
