{{/* Parts that the pods of operator and gateway share. */}}

{{/* An image's reference. Takes (values of the image, tag where they name none). */}}
{{- define "heliostat.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{/* Pod annotations and labels, none of which changes with the chart's version alone.
Takes (root, component). */}}
{{- define "heliostat.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- with $values.podAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
labels:
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "heliostat.selector" . | nindent 2 }}
{{- end -}}

{{/* Where a pod runs and as whom. Takes (root, component, affinity where the values name none). */}}
{{- define "heliostat.podPlacement" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
serviceAccountName: {{ include "heliostat.serviceAccount" (list $root $component) }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not (kindIs "invalid" $root.Values.runAsUser) }}
  runAsUser: {{ int64 $root.Values.runAsUser }}
  runAsGroup: {{ int64 $root.Values.runAsUser }}
  fsGroup: {{ int64 $root.Values.runAsUser }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with ($values.affinity | default (index . 2)) }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "heliostat.selector" (list $root $component) | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The affinity of pods that rather not share a node. Takes (root, component). */}}
{{- define "heliostat.spread" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "heliostat.selector" . | nindent 12 }}
{{- end -}}

{{/* What a container may do: nothing but run. */}}
{{- define "heliostat.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
{{- end -}}

{{/* Arguments that operator and router take alike. */}}
{{- define "heliostat.commonArguments" -}}
{{- range .Values.watchNamespaces -}}
- --namespace={{ . }}
{{ end -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- end -}}

{{/* Containers of a pod share its ports: two on one would restart for ever. */}}
{{- define "heliostat.checkPorts" -}}
{{- $taken := dict "8080" "a port of Envoy" "8443" "a port of Envoy" "15000" "a port of Envoy" "15001" "a port of Envoy" -}}
{{- $ports := list (list "adminPort" .Values.adminPort) -}}
{{- if .Values.gateway.picker.enabled -}}
{{- $ports = append $ports (list "gateway.picker.port" .Values.gateway.picker.port) -}}
{{- end -}}
{{- if include "heliostat.hasSiblings" . -}}
{{- $ports = append $ports (list "federation.port" .Values.federation.port) -}}
{{- end -}}
{{- range $port := $ports -}}
{{- $number := toString (int (last $port)) -}}
{{- if hasKey $taken $number -}}
{{- fail (printf "%s: %s is %s; choose another" (first $port) $number (get $taken $number)) -}}
{{- end -}}
{{- $_ := set $taken $number (printf "%s too" (first $port)) -}}
{{- end -}}
{{- end -}}
