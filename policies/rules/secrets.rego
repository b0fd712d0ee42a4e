package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Secrets are not kept in the repository
# description: Anyone who can read the repository, or ever could, has them. Encrypted (SOPS) and empty values pass.
# custom:
#   rule: secret-in-manifest
#   severity: critical
#   controls: [CC6.1]
#   remediation: use an operator that fetches it, a SealedSecret, or SOPS
deny contains {"rule": "secret-in-manifest", "message": sprintf("the value of `%s` is in the repository", [key]), "path": [field, key]} if {
	input.object.kind == "Secret"
	some field in ["data", "stringData"]
	some key, value in input.object[field]
	value != ""
	not startswith(value, "ENC[AES256_GCM,")
}

# METADATA
# title: Secrets are not written into environment variables
# description: A variable with a telling name and a literal value is a secret that everybody reads.
# custom:
#   rule: secret-in-environment
#   severity: high
#   controls: [CC6.1]
#   remediation: take the value from a Secret (`valueFrom.secretKeyRef`)
deny contains {"rule": "secret-in-environment", "message": sprintf("the variable `%s` of the container `%s` has its value in the repository", [variable.name, item.container.name]), "path": array.concat(item.path, ["env", i, "value"])} if {
	some item in lib.containers
	some i, variable in item.container.env
	name := lower(variable.name)
	tells_secret(name)
	value := object.get(variable, "value", "")
	value != ""
	not startswith(value, "$(")
	not tells_place(name)
}

# METADATA
# title: ConfigMaps hold no keys
# description: A private key or cloud credential in a ConfigMap is read by everybody who reads ConfigMaps.
# custom:
#   rule: secret-in-config
#   severity: critical
#   controls: [CC6.1]
#   remediation: move it into a Secret that is not in the repository
deny contains {"rule": "secret-in-config", "message": sprintf("the value of `%s` looks like a key", [key]), "path": ["data", key]} if {
	input.object.kind == "ConfigMap"
	some key, value in input.object.data
	regex.match(`-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b`, value)
}

# No patterns here: each would be compiled again for every variable.
tells_secret(name) if {
	some word in ["password", "passwd", "secret", "token", "apikey", "api_key", "privatekey", "private_key", "credential"]
	contains(name, word)
}

tells_place(name) if {
	some ending in ["_file", "_path", "_name", "_url", "_ttl"]
	endswith(name, ending)
}
