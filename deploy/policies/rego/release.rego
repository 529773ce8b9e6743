# What a release has to be as a whole: of all its objects at once, for what is asked here is mostly whether one fits another. Schemas do not know
# that, admission.yaml sees one object at a time, and Pod Security is there. For values and overlays of your own, too:
#
#   helm template ... | conftest test --combine --namespace novacron --policy deploy/policies/rego -
package novacron

import rego.v1

objects := [file.contents | some file in input]

# Those that run until they are told to end, and those that end.
servers := [object | some object in objects; object.kind in {"Deployment", "StatefulSet", "DaemonSet"}]

tasks := [object | some object in objects; object.kind in {"Job", "CronJob"}]

workloads := array.concat(servers, tasks)

label(object) := sprintf("%s/%s", [object.kind, object.metadata.name])

template(workload) := workload.spec.jobTemplate.spec.template if workload.kind == "CronJob"

template(workload) := workload.spec.template if workload.kind != "CronJob"

pod(workload) := template(workload).spec

containers(workload) := array.concat(pod(workload).containers, object.get(pod(workload), "initContainers", []))

labels(workload) := object.get(template(workload), ["metadata", "labels"], {})

# An empty selector selects everything, as Kubernetes has it.
selects(selector, workload) if {
	every key, value in selector {
		labels(workload)[key] == value
	}
}

autoscalers contains object if {
	some object in objects
	object.kind in {"HorizontalPodAutoscaler", "ScaledObject"}
}

scales(autoscaler, workload) if {
	autoscaler.spec.scaleTargetRef.name == workload.metadata.name
	object.get(autoscaler.spec.scaleTargetRef, "kind", "Deployment") == workload.kind
}

maximum(autoscaler) := object.get(autoscaler.spec, "maxReplicas", object.get(autoscaler.spec, "maxReplicaCount", 100))

# As many as there may be at once.
replicas(workload) := max({object.get(workload.spec, "replicas", 1)} | {maximum(a) | some a in autoscalers; scales(a, workload)})

several contains workload if {
	some workload in servers
	workload.kind in {"Deployment", "StatefulSet"}
	replicas(workload) > 1
}

# A container without requests is placed anywhere and goes first; one without a limit takes what others need.
deny contains message if {
	some workload in workloads
	some container in containers(workload)
	some bound in ["requests", "limits"]
	some resource in ["cpu", "memory"]
	not container.resources[bound][resource]
	message := sprintf("%s: container %s has no %s of %s", [label(workload), container.name, bound, resource])
}

deny contains message if {
	some workload in servers
	some container in pod(workload).containers
	some probe in ["livenessProbe", "readinessProbe"]
	not container[probe]
	message := sprintf("%s: container %s has no %s", [label(workload), container.name, probe])
}

# What makes a pod not ready, such as a store without a leader, must not have it restarted.
deny contains message if {
	some workload in servers
	some container in pod(workload).containers
	container.livenessProbe.httpGet.path == container.readinessProbe.httpGet.path
	message := sprintf("%s: container %s is restarted for what only makes it not ready", [label(workload), container.name])
}

deny contains message if {
	some workload in workloads
	not pod(workload).securityContext.seccompProfile.type in {"RuntimeDefault", "Localhost"}
	message := sprintf("%s: its pods have no seccomp profile", [label(workload)])
}

# A token of Kubernetes is for who has a role.
deny contains message if {
	some workload in workloads
	object.get(pod(workload), "automountServiceAccountToken", true)
	not has_role(object.get(pod(workload), "serviceAccountName", "default"))
	message := sprintf("%s: its pods get a token of Kubernetes and have no role", [label(workload)])
}

has_role(account) if {
	some object in objects
	object.kind in {"RoleBinding", "ClusterRoleBinding"}
	some subject in object.subjects
	subject.kind == "ServiceAccount"
	subject.name == account
}

# All in one zone are lost with it.
deny contains message if {
	some workload in several
	not over_zones(workload)
	message := sprintf("%s: its pods are not spread over zones", [label(workload)])
}

over_zones(workload) if {
	some spread in pod(workload).topologySpreadConstraints
	spread.topologyKey == "topology.kubernetes.io/zone"
	selects(spread.labelSelector.matchLabels, workload)
}

deny contains message if {
	some workload in several
	not has_budget(workload)
	message := sprintf("%s: no PodDisruptionBudget is about its pods", [label(workload)])
}

budgets contains object if {
	some object in objects
	object.kind == "PodDisruptionBudget"
}

has_budget(workload) if {
	some budget in budgets
	selects(budget.spec.selector.matchLabels, workload)
}

# With such a budget no node can be emptied.
deny contains message if {
	some budget in budgets
	some field, value in {"maxUnavailable": {0, "0", "0%"}, "minAvailable": {"100%"}}
	budget.spec[field] in value
	message := sprintf("%s: lets no pod go", [label(budget)])
}

# What selects nothing is a mistake in its selector.
deny contains message if {
	some object in objects
	some selector in selectors(object)
	not selects_some(selector)
	message := sprintf("%s: selects no pods", [label(object)])
}

selectors(object) := [object.spec.selector] if {
	object.kind == "Service"
	object.spec.selector
}

selectors(object) := [object.spec.selector.matchLabels] if object.kind == "PodDisruptionBudget"

selects_some(selector) if {
	some workload in workloads
	selects(selector, workload)
}

deny contains message if {
	some autoscaler in autoscalers
	every workload in servers {
		not scales(autoscaler, workload)
	}
	message := sprintf("%s: scales nothing that is there", [label(autoscaler)])
}

deny contains message if {
	some workload in workloads
	account := pod(workload).serviceAccountName
	not there("ServiceAccount", account)
	message := sprintf("%s: there is no ServiceAccount %s", [label(workload), account])
}

deny contains message if {
	some workload in workloads
	some volume in pod(workload).volumes
	not volume.configMap.optional
	not there("ConfigMap", volume.configMap.name)
	message := sprintf("%s: there is no ConfigMap %s", [label(workload), volume.configMap.name])
}

there(kind, name) if {
	some object in objects
	object.kind == kind
	object.metadata.name == name
}

# An even number of members bears the loss of no more than the odd one below it.
deny contains message if {
	some workload in servers
	labels(workload)["app.kubernetes.io/component"] == "consensus"
	workload.spec.replicas % 2 == 0
	message := sprintf("%s: %d members; an odd number is wanted", [label(workload), workload.spec.replicas])
}

# Otherwise the autoscaler asks for pods that the quota refuses. Agents are one of each node, of which nothing is known here.
deny contains message if {
	some quota in objects
	quota.kind == "ResourceQuota"
	asked := sum([cores(workload) | some workload in servers; workload.kind != "DaemonSet"])
	asked > amount(quota.spec.hard["requests.cpu"])
	message := sprintf("%s: less than the %v cores that all replicas ask for", [label(quota), asked])
}

cores(workload) := replicas(workload) * sum([amount(container.resources.requests.cpu) | some container in containers(workload)])

amount(quantity) := units.parse(sprintf("%v", [quantity]))
