{{/* Names and labels. Selectors are immutable, so heliostat.selector never changes. */}}

{{- define "heliostat.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else if contains "heliostat" .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-heliostat" (.Release.Name | trunc 33 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "heliostat.operator" -}}
{{ include "heliostat.fullname" . }}-operator
{{- end -}}

{{- define "heliostat.gateway" -}}
{{ include "heliostat.fullname" . }}-gateway
{{- end -}}

{{- define "heliostat.picker" -}}
{{ include "heliostat.fullname" . }}-picker
{{- end -}}

{{- define "heliostat.tlsSecret" -}}
{{ .Values.gateway.tls.secretName | default (printf "%s-tls" (include "heliostat.gateway" .)) }}
{{- end -}}

{{/* Takes (root, component). */}}
{{- define "heliostat.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $account := (index $root.Values $component).serviceAccount -}}
{{- $made := ternary (include (printf "heliostat.%s" $component) $root) "default" $account.create -}}
{{ $account.name | default $made }}
{{- end -}}

{{/* What selects pods. Takes (root, component); an empty component selects all of the release. */}}
{{- define "heliostat.selector" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
app.kubernetes.io/name: heliostat
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- if $component }}
app.kubernetes.io/component: {{ $component }}
{{- end }}
{{- end -}}

{{/* The labels of an object. Takes (root, component). */}}
{{- define "heliostat.labels" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "heliostat.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The namespaces to give rights in, as JSON: the watched ones, or one empty name for all. */}}
{{- define "heliostat.rightsIn" -}}
{{- .Values.watchNamespaces | default (list "") | toJson -}}
{{- end -}}

{{- define "heliostat.url" -}}
{{- if .Values.gateway.url -}}
{{ .Values.gateway.url }}
{{- else -}}
{{- $port := int .Values.gateway.service.httpPort -}}
http://{{ include "heliostat.gateway" . }}.{{ .Release.Namespace }}.svc{{ if ne $port 80 }}:{{ $port }}{{ end }}
{{- end -}}
{{- end -}}
