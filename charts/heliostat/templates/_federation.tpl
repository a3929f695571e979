{{/* How gateway pods reach each other and other regions. */}}

{{/* "true" where several gateway pods may run at a time, for longer than an upgrade takes. */}}
{{- define "heliostat.hasSeveralGateways" -}}
{{- if or .Values.gateway.autoscaling.enabled (gt (int .Values.gateway.replicas) 1) -}}
true
{{- end -}}
{{- end -}}

{{/* "true" where gateway pods share what they know. */}}
{{- define "heliostat.hasSiblings" -}}
{{- if or .Values.federation.enabled (include "heliostat.hasSeveralGateways" .) -}}
true
{{- end -}}
{{- end -}}

{{/* "true" where the router knows which region it is in. */}}
{{- define "heliostat.hasRegion" -}}
{{- if or .Values.region.name (include "heliostat.hasSiblings" .) -}}
true
{{- end -}}
{{- end -}}

{{- define "heliostat.region" -}}
{{ .Values.region.name | default "local" }}
{{- end -}}

{{- define "heliostat.identity" -}}
{{ .Values.federation.identity | default (printf "spiffe://heliostat.example/region/%s" .Values.region.name) }}
{{- end -}}

{{- define "heliostat.federation" -}}
{{ include "heliostat.fullname" . }}-federation
{{- end -}}

{{- define "heliostat.siblings" -}}
{{ include "heliostat.fullname" . }}-siblings
{{- end -}}

{{/* The Secret from which routers prove who they are: the region's certificate, or what the
routers of a region without others share. */}}
{{- define "heliostat.regionSecret" -}}
{{- if .Values.federation.enabled -}}
{{ .Values.federation.certificate.secretName | default (include "heliostat.federation" .) }}
{{- else -}}
{{ .Values.gateway.siblings.secret.name | default (include "heliostat.siblings" .) }}
{{- end -}}
{{- end -}}

{{/* "true" where RegionPeers can be made: in one install with their definition they cannot. */}}
{{- define "heliostat.hasPeers" -}}
{{- $served := .Capabilities.APIVersions.Has "heliostat.dev/v1alpha1/RegionPeer" -}}
{{- if and .Values.peers (or $served (not .Values.crds.enabled)) -}}
true
{{- end -}}
{{- end -}}

{{- define "heliostat.checkFederation" -}}
{{- with .Values.federation -}}
{{- if and $.Values.peers (not .enabled) -}}
{{- fail "peers: other regions are reached only with federation.enabled" -}}
{{- end -}}
{{- if .enabled -}}
{{- if not $.Values.region.name -}}
{{- fail "region.name: with federation.enabled this region needs a name" -}}
{{- end -}}
{{- if not (or .certificate.secretName .certificate.certManager.enabled) -}}
{{- fail "federation.certificate: name a Secret, or have cert-manager make it" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway.autoscaling -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail "gateway.autoscaling: minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Arguments of the router. */}}
{{- define "heliostat.federationArguments" -}}
{{- if include "heliostat.hasRegion" . -}}
- --region={{ include "heliostat.region" . }}
- --release-namespace={{ .Release.Namespace }}
{{ range .Values.region.groups -}}
- --region-group={{ . }}
{{ end -}}
{{- end -}}
{{- if include "heliostat.hasSiblings" . -}}
- --router-name=$(POD_NAME)
- --federation-port={{ .Values.federation.port }}
{{ if .Values.federation.enabled -}}
- --region-certificates=/run/secrets/heliostat/region
{{ else -}}
- --region-secret-file=/run/secrets/heliostat/region/secret
{{ end -}}
- --sibling-selector=app.kubernetes.io/name=heliostat,app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=gateway
{{ end -}}
{{- end -}}
