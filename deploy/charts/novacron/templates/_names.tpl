{{/* What objects and pods have in common. `component` is called with a dict: root, component. */}}

{{- define "novacron.selector" -}}
app.kubernetes.io/name: novacron
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "novacron.labels" -}}
{{ include "novacron.selector" . }}
app.kubernetes.io/part-of: novacron
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "novacron.metadata" -}}
name: novacron-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "novacron.labels" . | nindent 2 }}
{{- end }}

{{- define "novacron.image" -}}
{{- $digest := index .root.Values.image.digests .component -}}
{{ .root.Values.image.registry }}/{{ .component }}{{ if $digest }}@{{ $digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The settings file of a daemon: what the chart decides, and over it what the values say. */}}
{{- define "novacron.config" -}}
{{- $ours := include (printf "novacron.%s.settings" .component) .root | fromYaml -}}
{{- mustMergeOverwrite $ours (deepCopy .values.settings) | toYaml -}}
{{- end }}

{{- define "novacron.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "novacron.metadata" . | nindent 2 }}
data:
  config.yaml: |
    {{- include "novacron.config" . | nindent 4 }}
---
# Nobody of a pod asks Kubernetes for anything.
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "novacron.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end }}

{{- define "novacron.podMetadata" -}}
labels:
  {{- include "novacron.selector" . | nindent 2 }}
  {{- if .root.Values.mesh }}
  sidecar.istio.io/inject: {{ eq .component "api" | quote }}
  {{- end }}
annotations:
  # A change of settings makes other pods.
  novacron.io/config-digest: {{ include "novacron.config" . | sha256sum }}
{{- end }}

{{/* Of all pods. */}}
{{- define "novacron.pod" -}}
serviceAccountName: novacron-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
# Twice the drain, which is 30 s, for what is before and after it.
terminationGracePeriodSeconds: 60
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- if .root.Values.policies }}
priorityClassName: novacron-{{ .component }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Of all containers. */}}
{{- define "novacron.container" -}}
name: {{ .component }}
image: {{ include "novacron.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [--config, /etc/novacron/config/config.yaml]
resources:
  {{- toYaml .values.resources | nindent 2 }}
# None depends on the store having a leader: a member that waits for one is restarted for nothing.
startupProbe:
  httpGet: {path: {{ ternary "/healthz" "/startup" (eq .component "dwcp") }}, port: metrics}
  periodSeconds: 5
  failureThreshold: 30
readinessProbe:
  httpGet: {path: /ready, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 30
  timeoutSeconds: 5
lifecycle:
  # Endpoints leave everywhere before the daemon takes no more: by the kubelet, for the images have no shell. SIGTERM then drains for 30 s.
  preStop: {sleep: {seconds: 10}}
{{- end }}

{{- define "novacron.volumes" -}}
- name: config
  configMap: {name: novacron-{{ .component }}}
{{- if .root.Values.tls.enabled }}
- name: tls
  secret: {secretName: novacron-{{ .component }}-tls, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "novacron.mounts" -}}
- {name: config, mountPath: /etc/novacron/config, readOnly: true}
{{- if .root.Values.tls.enabled }}
- {name: tls, mountPath: /etc/novacron/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "novacron.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* As even as can be over zones. A zone that is lost must not keep the others from getting its pods. */}}
{{- define "novacron.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "novacron.selector" . | nindent 8 }}
{{- end }}

{{- define "novacron.scheme" -}}
{{ ternary "https" "http" .Values.tls.enabled }}
{{- end }}

{{- define "novacron.apiScheme" -}}
{{ ternary "https" "http" (and .Values.tls.enabled (not .Values.mesh)) }}
{{- end }}

{{/* Where the store's clients find it: any member that is ready, so that they spread; and each by name, for a member that goes takes its connections
     with it, and a request that was lost goes to the next address at once. */}}
{{- define "novacron.store" -}}
{{- $scheme := include "novacron.scheme" . -}}
{{ $scheme }}://novacron-consensus-client.{{ .Release.Namespace }}.svc:2379
{{- if .Values.consensus.enabled }}
{{- range until (int .Values.consensus.members) }}, {{ $scheme }}://novacron-consensus-{{ . }}.novacron-consensus.{{ $.Release.Namespace }}.svc:2379
{{- end }}
{{- end }}
{{- end }}
