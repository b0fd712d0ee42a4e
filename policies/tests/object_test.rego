package countersign.object_test

import data.countersign.object as rules
import rego.v1

deployment(spec) := {"kind": "Deployment", "metadata": {"name": "web", "labels": {"team": "shop"}}, "spec": {"template": {"spec": spec}}}

good := {"name": "web", "image": "registry.example/web:1.2", "resources": {"limits": {"memory": "64Mi"}}, "readinessProbe": {"httpGet": {"port": 80}}}

denied(object, parameters) := {finding.rule | some finding in rules.deny with input as {"object": object, "parameters": parameters}}

test_a_compliant_deployment_passes if denied(deployment({"containers": [good]}), {"requiredLabels": ["team"], "allowedRegistries": ["registry.example"]}) == set()

test_an_object_without_pods_passes if denied({"kind": "ConfigMap", "metadata": {"name": "a"}}, {"requiredLabels": ["team"]}) == set()

test_privileged_is_denied if "privileged" in denied(deployment({"containers": [object.union(good, {"securityContext": {"privileged": true}})]}), {})

test_privileged_init_container_is_denied if "privileged" in denied(deployment({"containers": [good], "initContainers": [object.union(good, {"securityContext": {"privileged": true}})]}), {})

test_privileged_in_a_cron_job_is_denied if {
	pod := {"containers": [object.union(good, {"securityContext": {"privileged": true}})]}
	"privileged" in denied({"kind": "CronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}, {})
}

test_the_path_leads_to_the_value if {
	some finding in rules.deny with input as {"object": {"kind": "Pod", "spec": {"containers": [object.union(good, {"securityContext": {"privileged": true}})]}}}
	finding.path == ["spec", "containers", 0, "securityContext", "privileged"]
}

test_host_namespaces_are_denied if {
	every field in ["hostNetwork", "hostPID", "hostIPC"] {
		"host-namespaces" in denied(deployment({"containers": [good], field: true}), {})
	}
}

test_missing_limits_are_denied if denied(deployment({"containers": [object.remove(good, ["resources"])]}), {}) == {"resource-limits"}

test_required_limits_can_be_named if denied(deployment({"containers": [good]}), {"requiredLimits": ["cpu"]}) == {"resource-limits"}

test_unpinned_images_are_denied if {
	every image in ["registry.example/web", "registry.example/web:latest", "registry.example:5000/web"] {
		denied(deployment({"containers": [object.union(good, {"image": image})]}), {}) == {"pinned-images"}
	}
}

test_pinned_images_pass if {
	every image in ["registry.example:5000/web:1", "web@sha256:abc", "web:1"] {
		denied(deployment({"containers": [object.union(good, {"image": image})]}), {}) == set()
	}
}

test_a_digest_can_be_required if denied(deployment({"containers": [good]}), {"requireDigest": true}) == {"pinned-images"}

test_other_registries_are_denied if denied(deployment({"containers": [good]}), {"allowedRegistries": ["registry.other"]}) == {"allowed-registries"}

test_a_registry_is_no_mere_prefix if denied(deployment({"containers": [good]}), {"allowedRegistries": ["registry.exam"]}) == {"allowed-registries"}

test_missing_labels_are_denied if denied(deployment({"containers": [good]}), {"requiredLabels": ["owner"]}) == {"required-labels"}

test_a_missing_probe_is_warned_of if {
	some finding in rules.warn with input as {"object": deployment({"containers": [object.remove(good, ["readinessProbe"])]})}
	finding.rule == "readiness-probe"
}

test_a_probe_is_not_warned_of if count(rules.warn) == 0 with input as {"object": deployment({"containers": [good]})}
