{{/*
The pod of any component or job, with all that may differ between them. Every pod of the chart comes from here.
Takes root; component, its name; about, its line of _components.tpl; own, its part of the values; config, the ConfigMap with
radar.yaml; serviceAccount; and for jobs job: true.
*/}}
{{- define "complaint-radar.pod" -}}
{{- $root := .root }}
{{- $pod := include "complaint-radar.podValues" . | fromYaml }}
{{- $files := include "complaint-radar.secretFiles" (dict "root" .root "secrets" .about.secrets) }}
{{- $catalogue := $root.Values.catalogue }}
{{- $hasCatalogue := and .about.connects (or $catalogue.csv $catalogue.configMap.name) -}}
metadata:
  labels:
    {{- include "complaint-radar.selector" . | nindent 4 }}
    {{- with $pod.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- if not .job }}
    # A changed configuration replaces the pods. Only connect reads the sources and the catalogue.
    {{- $read := include "complaint-radar.settings" $root | fromYaml }}
    {{- if .about.connects }}
    {{- $_ := set $read "catalogue" $catalogue.csv }}
    {{- else }}
    {{- $_ := unset $read "sources" }}
    {{- end }}
    checksum/configuration: {{ toYaml $read | sha256sum | trunc 16 | quote }}
    {{- end }}
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- with $pod.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .serviceAccount | quote }}
  automountServiceAccountToken: false
  # A Service called "radar" would put RADAR_PORT and the like into the environment, which is our own configuration.
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    {{- with $root.Values.runAs.user }}
    runAsUser: {{ . | int64 }}
    {{- end }}
    {{- with $root.Values.runAs.group }}
    runAsGroup: {{ . | int64 }}
    {{- end }}
    {{- with $root.Values.runAs.fsGroup }}
    fsGroup: {{ . | int64 }}
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile: {type: RuntimeDefault}
  terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds }}
  {{- if .job }}
  restartPolicy: Never
  # Before the job's own deadline, which deletes the pod and with it the log.
  activeDeadlineSeconds: {{ sub $pod.deadlineSeconds 15 }}
  {{- end }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $pod.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $ours := dict "labelSelector" (dict "matchLabels" (include "complaint-radar.selector" $ | fromYaml)) }}
    - {{ merge (deepCopy .) (ternary (dict) $ours (hasKey . "labelSelector")) | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "complaint-radar.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ concat .about.args (list "--config" "/etc/complaint-radar/radar.yaml") | toYaml | nindent 8 }}
      # The last lines of the log are told by `kubectl describe` too.
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources: {{ toYaml $pod.resources | nindent 8 }}
      env:
        # The port is open to the cluster here; elsewhere the program listens on loopback.
        - {name: RADAR_ADMIN__HOST, value: 0.0.0.0}
        {{- if .about.connects }}
        - name: RADAR_PSEUDONYM_KEY
          valueFrom: {secretKeyRef: {{ $root.Values.pseudonymKeySecret | toJson }}}
        {{- end }}
        {{- if $hasCatalogue }}
        - {name: RADAR_CATALOGUE, value: /etc/complaint-radar/catalogue.csv}
        {{- end }}
        {{- with $pod.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if not .job }}
      ports:
        - {name: admin, containerPort: 9464}
      # None of them asks Kafka or ClickHouse: when those are away, a restart mends nothing.
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 5
        failureThreshold: {{ div (add $pod.startupSeconds 4) 5 }}
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 15
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- end }}
      volumeMounts:
        - {name: config, mountPath: /etc/complaint-radar, readOnly: true}
        {{- if $files }}
        - {name: secrets, mountPath: /var/run/secrets/complaint-radar, readOnly: true}
        {{- end }}
        - {name: data, mountPath: /var/lib/complaint-radar}
        - {name: tmp, mountPath: /tmp}
        {{- with $pod.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      projected:
        sources:
          - configMap: {name: {{ .config | quote }}, items: [{key: radar.yaml, path: radar.yaml}]}
          {{- if $hasCatalogue }}
          {{- $from := $catalogue.configMap }}
          {{- if $catalogue.csv }}
          {{- $from = dict "name" (print (include "complaint-radar.fullname" $root) "-catalogue") "key" "catalogue.csv" }}
          {{- end }}
          - configMap: {name: {{ $from.name | quote }}, items: [{key: {{ $from.key | quote }}, path: catalogue.csv}]}
          {{- end }}
    {{- with $files }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources: {{ . | trim | nindent 10 }}
    {{- end }}
    - {name: data, emptyDir: {sizeLimit: {{ $pod.dataSize }}}}
    - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
    {{- with $pod.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
