package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Network policies close something
# description: An empty peer list, an empty selector over all namespaces or 0.0.0.0/0 lets everybody in.
# custom:
#   rule: network-policy-open
#   severity: medium
#   controls: [CC6.6]
#   remediation: name the peers
deny contains {"rule": "network-policy-open", "message": "it lets everybody in", "path": ["spec", "ingress", i]} if {
	input.object.kind == "NetworkPolicy"
	some i, entry in input.object.spec.ingress
	open_peers(object.get(entry, "from", []))
}

open_peers(peers) if count(peers) == 0

open_peers(peers) if {
	some peer in peers
	peer.namespaceSelector == {}
	object.get(peer, "podSelector", {}) == {}
}

open_peers(peers) if {
	some peer in peers
	peer.ipBlock.cidr in {"0.0.0.0/0", "::/0"}
	count(object.get(peer.ipBlock, "except", [])) == 0
}

# METADATA
# title: Ingresses use TLS
# description: Without TLS, or for a host that its certificate does not cover, requests can be read and changed on their way.
# custom:
#   rule: ingress-tls
#   severity: high
#   controls: [CC6.7]
#   remediation: add the host to `spec.tls`
deny contains {"rule": "ingress-tls", "message": sprintf("the host `%s` has no TLS", [host]), "path": ["spec", "rules", i]} if {
	input.object.kind == "Ingress"
	some i, rule in input.object.spec.rules
	host := object.get(rule, "host", "")
	not covered(host)
}

covered(host) if {
	some entry in input.object.spec.tls
	host in object.get(entry, "hosts", [])
}

# METADATA
# title: Ingresses name their host
# description: A wildcard or missing host takes requests meant for others.
# custom:
#   rule: ingress-wildcard
#   severity: medium
#   controls: [CC6.6]
#   remediation: name the host
deny contains {"rule": "ingress-wildcard", "message": sprintf("it takes the host `%s`", [host]), "path": ["spec", "rules", i, "host"]} if {
	input.object.kind == "Ingress"
	some i, rule in input.object.spec.rules
	host := object.get(rule, "host", "")
	any_host(host)
}

any_host("")

any_host(host) if startswith(host, "*")

# METADATA
# title: Ingresses bring no configuration of their own
# description: Snippet annotations run in the ingress controller with its rights, which read every Secret it can.
# custom:
#   rule: ingress-snippet
#   severity: critical
#   controls: [CC6.8]
#   remediation: remove the annotation
deny contains {"rule": "ingress-snippet", "message": sprintf("it has the annotation `%s`", [key]), "path": ["metadata", "annotations", key]} if {
	input.object.kind == "Ingress"
	some key, _ in input.object.metadata.annotations
	endswith(key, "snippet")
}

# METADATA
# title: Services are exposed on purpose
# description: The parameter `allowedServiceTypes` lists the types that may be used; ClusterIP, ExternalName and LoadBalancer by default.
# custom:
#   rule: service-exposure
#   severity: medium
#   controls: [CC6.6]
#   remediation: use another type, or extend the parameter by an approved change
deny contains {"rule": "service-exposure", "message": sprintf("it is of the type %s", [kind]), "path": ["spec", "type"]} if {
	input.object.kind == "Service"
	kind := object.get(input.object, ["spec", "type"], "ClusterIP")
	not kind in lib.parameter("allowedServiceTypes", ["ClusterIP", "ExternalName", "LoadBalancer"])
}

# METADATA
# title: Services take no external addresses
# description: With `externalIPs` a Service takes traffic that is meant for others (CVE-2020-8554).
# custom:
#   rule: external-ips
#   severity: high
#   controls: [CC6.6]
#   remediation: remove `externalIPs`
deny contains {"rule": "external-ips", "message": "it takes external addresses", "path": ["spec", "externalIPs"]} if {
	input.object.kind == "Service"
	count(object.get(input.object, ["spec", "externalIPs"], [])) > 0
}
