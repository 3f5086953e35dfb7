{{- define "complaint-radar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters leave room for "-migrate-" and a hash within the 63 of a label. */}}
{{- define "complaint-radar.fullname" -}}
{{- $name := include "complaint-radar.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects a component's pods. It can never change afterwards: no version belongs here. Takes root, component. */}}
{{- define "complaint-radar.selector" -}}
app.kubernetes.io/name: {{ include "complaint-radar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Name, namespace and labels of an object. Takes root, component, and suffix or name if it is not the release's own. */}}
{{- define "complaint-radar.metadata" -}}
{{- $fullname := include "complaint-radar.fullname" .root -}}
name: {{ default (empty .suffix | ternary $fullname (print $fullname "-" .suffix)) .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "complaint-radar.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: complaint-radar
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Annotations of a hook. What failed stays, with its log, until the next run. Takes the weight. */}}
{{- define "complaint-radar.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-failed
{{- end }}

{{- define "complaint-radar.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Service account of the components; hooks have their own, since this one may not be there yet. */}}
{{- define "complaint-radar.serviceAccount" -}}
{{- with .Values.serviceAccount }}
{{- if .create }}{{ default (include "complaint-radar.fullname" $) .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- end }}
{{- end }}

{{/* radar.yaml: the free part of the values, and what the chart's own values say. */}}
{{- define "complaint-radar.settings" -}}
{{- $files := "/var/run/secrets/complaint-radar" }}
{{- $kafka := dict "bootstrap_servers" .Values.kafka.bootstrapServers "security_protocol" .Values.kafka.securityProtocol }}
{{- with .Values.kafka }}
{{- with .prefix }}{{ $_ := set $kafka "prefix" . }}{{ end }}
{{- if hasPrefix "SASL" .securityProtocol }}
{{- $_ := set $kafka "sasl_mechanism" .saslMechanism }}
{{- with .username }}{{ $_ := set $kafka "username" . }}{{ end }}
{{- with .passwordSecret.name }}{{ $_ := set $kafka "password_file" (print $files "/kafka/password") }}{{ end }}
{{- with .tokenSecret.name }}{{ $_ := set $kafka "token_file" (print $files "/kafka/token") }}{{ end }}
{{- end }}
{{- with .caSecret.name }}{{ $_ := set $kafka "ca_file" (print $files "/kafka/ca.crt") }}{{ end }}
{{- with .clientCertificateSecret.name }}
{{- $_ := set $kafka "certificate_file" (print $files "/kafka/tls.crt") }}
{{- $_ := set $kafka "key_file" (print $files "/kafka/tls.key") }}
{{- end }}
{{- end }}
{{- $clickhouse := dict }}
{{- with .Values.clickhouse }}
{{- $_ := set $clickhouse "hosts" .hosts }}
{{- $_ := set $clickhouse "database" .database }}
{{- $_ := set $clickhouse "user" .user }}
{{- with .passwordSecret.name }}{{ $_ := set $clickhouse "password_file" (print $files "/clickhouse/password") }}{{ end }}
{{- if .secure }}{{ $_ := set $clickhouse "secure" true }}{{ end }}
{{- with .caSecret.name }}{{ $_ := set $clickhouse "ca_file" (print $files "/clickhouse/ca.crt") }}{{ end }}
{{- end }}
{{- $set := dict "data_dir" "/var/lib/complaint-radar" "kafka" $kafka "clickhouse" $clickhouse }}
{{- mergeOverwrite (deepCopy .Values.config) $set | toYaml }}
{{- end }}

{{/* Files that a process gets out of Secrets, as sources of a projected volume. Takes root, secrets. */}}
{{- define "complaint-radar.secretFiles" -}}
{{- range $service := .secrets }}
{{- $of := index $.root.Values $service }}
{{- range $value, $file := dict "passwordSecret" "password" "tokenSecret" "token" "caSecret" "ca.crt" }}
{{- with index $of $value }}
{{- if .name }}
- secret: {name: {{ .name | quote }}, items: [{key: {{ .key | quote }}, path: {{ $service }}/{{ $file }}}]}
{{- end }}
{{- end }}
{{- end }}
{{- with $of.clientCertificateSecret }}
{{- if .name }}
- secret:
    name: {{ .name | quote }}
    items:
      - {key: {{ .certificateKey | quote }}, path: {{ $service }}/tls.crt}
      - {key: {{ .privateKeyKey | quote }}, path: {{ $service }}/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The values of a pod: those of `common`, with the component's own added or in their place. Takes root, own. */}}
{{- define "complaint-radar.podValues" -}}
{{- $values := deepCopy .root.Values.common }}
{{- range $key, $value := .own }}
{{- $common := get $values $key }}
{{- if and $common (has $key (list "extraEnv" "extraVolumes" "extraVolumeMounts")) }}
{{- $_ := set $values $key (concat $common $value) }}
{{- else if and $common (has $key (list "podAnnotations" "podLabels")) }}
{{- $_ := set $values $key (merge (deepCopy $value) $common) }}
{{- else }}
{{- $_ := set $values $key $value }}
{{- end }}
{{- end }}
{{- toYaml $values }}
{{- end }}
