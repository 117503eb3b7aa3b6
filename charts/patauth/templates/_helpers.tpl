{{/*
name is <release>--<component>[--<environment>]. Takes (list $ component limit).
Kubernetes allows 63 characters, 52 for a CronJob, whose jobs get a suffix.
*/}}
{{- define "patauth.name" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s--%s" $root.Release.Name (index . 1) -}}
{{- with $root.Values.environment }}{{ $name = printf "%s--%s" $name . }}{{ end -}}
{{- $limit := default 63 (index . 2) | int -}}
{{- if gt (len $name) $limit -}}
{{- fail (printf "the name %s has %d characters and at most %d are allowed: choose a shorter release name" $name (len $name) $limit) -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{/* selector labels of a component. Takes (list $ component). */}}
{{- define "patauth.selector" -}}
app.kubernetes.io/name: patauth
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* labels of a component's objects. Takes (list $ component). */}}
{{- define "patauth.labels" -}}
{{ include "patauth.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "patauth.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* config is the configuration file: config of the values, and the ports. */}}
{{- define "patauth.config" -}}
{{- toYaml (merge (dict "listen" ":8080" "internal_listen" ":9090") .Values.config) -}}
{{- end }}

{{/*
pod is the spec of every pod. Takes a dict:
  root      $
  workload  the argument of patauth: app, consumer, …
  needs     the settings of `secrets` that the workload reads
  secrets   what replaces entries of .Values.secrets
  config    the name of the ConfigMap
  account   the name of the ServiceAccount
  resources of the container
  serves    whether it runs until it is told to stop, with health on port 9090
*/}}
{{- define "patauth.pod" -}}
{{- $v := .root.Values -}}
{{- $secrets := mergeOverwrite (deepCopy $v.secrets) .secrets -}}
{{- $mounted := list -}}
{{- range .needs }}{{ if index $secrets . }}{{ $mounted = append $mounted . }}{{ end }}{{ end -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: false
# Links of a Service named patauth would be variables that look like settings.
enableServiceLinks: false
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- if .serves }}
terminationGracePeriodSeconds: 60
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "patauth.selector" (list .root .component) | nindent 8 }}
{{- end }}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: patauth
    image: {{ include "patauth.image" .root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args: [{{ .workload }}]
    env:
      - name: PATAUTH_CONFIG
        value: /etc/patauth/config.yaml
      {{- range $mounted }}
      {{- /* These settings are paths themselves. */}}
      {{- $isPath := has . (list "storage.keyring" "kafka.security.ca" "kafka.security.cert" "kafka.security.key") }}
      - name: PATAUTH_{{ . | replace "." "_" | upper }}{{ if not $isPath }}_FILE{{ end }}
        value: /etc/patauth/secrets/{{ . }}
      {{- end }}
    {{- if .serves }}
    ports:
      {{- if eq .workload "app" }}
      - name: http
        containerPort: 8080
      {{- end }}
      - name: internal
        containerPort: 9090
    startupProbe:
      httpGet: {path: /livez, port: internal}
      periodSeconds: 1
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /livez, port: internal}
      periodSeconds: 10
      timeoutSeconds: 3
    readinessProbe:
      httpGet: {path: /readyz, port: internal}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    lifecycle:
      preStop:
        # Until no endpoint list names this pod any more, it is still asked.
        sleep:
          seconds: 10
    {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    volumeMounts:
      - name: config
        mountPath: /etc/patauth/config.yaml
        subPath: config.yaml
        readOnly: true
      {{- if $mounted }}
      - name: secrets
        mountPath: /etc/patauth/secrets
        readOnly: true
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ .config }}
  {{- if $mounted }}
  - name: secrets
    projected:
      defaultMode: 0440
      sources:
        {{- range $mounted }}
        {{- $from := index $secrets . }}
        - secret:
            name: {{ $from.secret }}
            items:
              - key: {{ $from.key }}
                path: {{ . }}
        {{- end }}
  {{- end }}
{{- end }}

{{/*
deployment is a workload that runs until it is told to stop, and the budget that
keeps most of it running while nodes are drained. Takes the dict of "patauth.pod"
with component and replicas.
*/}}
{{- define "patauth.deployment" -}}
{{- $name := include "patauth.name" (list .root .component 0) -}}
{{- $v := .root.Values -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "patauth.labels" (list .root .component) | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      {{- include "patauth.selector" (list .root .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "patauth.labels" (list .root .component) | nindent 8 }}
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # A changed configuration is a new generation of pods.
        checksum/config: {{ include "patauth.config" .root | sha256sum }}
        {{- with $v.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "patauth.pod" (merge (dict "serves" true "secrets" dict "config" (include "patauth.name" (list .root "config" 0)) "account" (include "patauth.name" (list .root "account" 0))) .) | nindent 6 }}
{{- if gt (int .replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "patauth.labels" (list .root .component) | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "patauth.selector" (list .root .component) | nindent 6 }}
{{- end }}
{{- end }}
