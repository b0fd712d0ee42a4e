package countersign.object

import data.countersign.lib
import rego.v1

# METADATA
# title: Manifests use served API versions
# description: The API server of the version in the parameter `kubernetesVersion` (1.34 by default) no longer takes this one.
# related_resources:
#   - https://kubernetes.io/docs/reference/using-api/deprecation-guide/
# custom:
#   rule: removed-api
#   severity: high
#   controls: [CC8.1]
#   remediation: move to the version that took its place
deny contains {"rule": "removed-api", "message": sprintf("%s was removed in Kubernetes %s; use %s", [input.object.apiVersion, entry.removed, entry.use]), "path": ["apiVersion"]} if {
	unfinished
	entry := moved[sprintf("%s %s", [input.object.apiVersion, input.object.kind])]
	semver.compare(sprintf("%s.0", [lib.parameter("kubernetesVersion", "1.34")]), sprintf("%s.0", [entry.removed])) >= 0
}

# The table is made anew for each object, so it is asked only where it can matter: what was removed was alpha or beta.
unfinished if {
	some word in ["alpha", "beta"]
	contains(input.object.apiVersion, word)
}

moved[key] := {"removed": line[1], "use": line[2]} if {
	some line in [
		[["extensions/v1beta1"], "1.16", "apps/v1", ["Deployment", "DaemonSet", "ReplicaSet"]],
		[["apps/v1beta1", "apps/v1beta2"], "1.16", "apps/v1", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"]],
		[["extensions/v1beta1"], "1.16", "networking.k8s.io/v1", ["NetworkPolicy"]],
		[["extensions/v1beta1", "networking.k8s.io/v1beta1"], "1.22", "networking.k8s.io/v1", ["Ingress", "IngressClass"]],
		[["rbac.authorization.k8s.io/v1beta1", "rbac.authorization.k8s.io/v1alpha1"], "1.22", "rbac.authorization.k8s.io/v1", ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"]],
		[["admissionregistration.k8s.io/v1beta1"], "1.22", "admissionregistration.k8s.io/v1", ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]],
		[["apiextensions.k8s.io/v1beta1"], "1.22", "apiextensions.k8s.io/v1", ["CustomResourceDefinition"]],
		[["apiregistration.k8s.io/v1beta1"], "1.22", "apiregistration.k8s.io/v1", ["APIService"]],
		[["certificates.k8s.io/v1beta1"], "1.22", "certificates.k8s.io/v1", ["CertificateSigningRequest"]],
		[["scheduling.k8s.io/v1beta1"], "1.22", "scheduling.k8s.io/v1", ["PriorityClass"]],
		[["storage.k8s.io/v1beta1"], "1.22", "storage.k8s.io/v1", ["StorageClass", "CSIDriver", "CSINode", "VolumeAttachment"]],
		[["batch/v1beta1"], "1.25", "batch/v1", ["CronJob"]],
		[["discovery.k8s.io/v1beta1"], "1.25", "discovery.k8s.io/v1", ["EndpointSlice"]],
		[["events.k8s.io/v1beta1"], "1.25", "events.k8s.io/v1", ["Event"]],
		[["policy/v1beta1"], "1.25", "policy/v1", ["PodDisruptionBudget"]],
		[["policy/v1beta1"], "1.25", "Pod Security Admission", ["PodSecurityPolicy"]],
		[["autoscaling/v2beta1"], "1.25", "autoscaling/v2", ["HorizontalPodAutoscaler"]],
		[["autoscaling/v2beta2"], "1.26", "autoscaling/v2", ["HorizontalPodAutoscaler"]],
		[["storage.k8s.io/v1beta1"], "1.27", "storage.k8s.io/v1", ["CSIStorageCapacity"]],
		[["flowcontrol.apiserver.k8s.io/v1beta1", "flowcontrol.apiserver.k8s.io/v1beta2"], "1.29", "flowcontrol.apiserver.k8s.io/v1", ["FlowSchema", "PriorityLevelConfiguration"]],
		[["flowcontrol.apiserver.k8s.io/v1beta3"], "1.32", "flowcontrol.apiserver.k8s.io/v1", ["FlowSchema", "PriorityLevelConfiguration"]],
	]
	some version in line[0]
	some kind in line[3]
	key := sprintf("%s %s", [version, kind])
}
