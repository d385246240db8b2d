{{- define "docxy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "docxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "docxy.labels" -}}
{{ include "docxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "docxy.image" -}}
{{ required "image.repository is missing: the registry and repository that you pushed docxy's image to" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Ends in no slash. */}}
{{- define "docxy.publicUrl" -}}
{{- if .Values.publicUrl }}{{ trimSuffix "/" .Values.publicUrl }}
{{- else if .Values.acme.names }}https://{{ first .Values.acme.names }}
{{- else if and .Values.ingress.enabled .Values.ingress.host }}{{ ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ .Values.ingress.host }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.host }}https://{{ .Values.httpRoute.host }}
{{- else }}http://{{ include "docxy.name" . }}.{{ .Release.Namespace }}.svc{{ if ne (int .Values.service.port) 80 }}:{{ .Values.service.port }}{{ end }}
{{- end }}
{{- end }}

{{- define "docxy.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "docxy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Nothing, or why a certificate of docxy's own cannot work. */}}
{{- define "docxy.checkAcme" -}}
{{- if .Values.acme.names }}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled }}{{ fail "acme.names: docxy ends TLS itself then, so ingress and httpRoute have to be off" }}{{ end }}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}{{ fail "acme.names: only one replica can get the certificate, because the server may ask any pod; let a controller end TLS for more" }}{{ end }}
{{- if ne .Values.cache.volume.kind "claim" }}{{ fail "acme.names: the certificate has to outlive the pod, so cache.volume.kind has to be claim" }}{{ end }}
{{- end }}
{{- end }}
