package chart

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
)

func TestLint(t *testing.T) {
	kube, err := common.ParseKubeVersion("v1.34.0")
	require.NoError(t, err)
	for name, values := range map[string]map[string]any{"default": {}, "production": prod(t)} {
		t.Run(name, func(t *testing.T) {
			for _, m := range lint.RunAll(folder, values, "patients", lint.WithKubeVersion(kube)).Messages {
				if m.Severity >= support.WarningSev {
					t.Error(m)
				}
			}
		})
	}
}

func TestProductionNames(t *testing.T) {
	all := objects(t, release, prod(t))
	for name, replicas := range map[string]int32{
		"pat--authenticate--be--app--prod":                  3,
		"pat--authenticate--be--consumer-lis-patient--prod": 3,
		"pat--authenticate--be--wrk--default--prod":         2,
	} {
		d := a[*appsv1.Deployment](t, all, "Deployment "+name)
		require.Equal(t, replicas, *d.Spec.Replicas, name)
		require.Equal(t, "0", d.Spec.Strategy.RollingUpdate.MaxUnavailable.String(), name)
		require.Subset(t, d.Spec.Template.Labels, d.Spec.Selector.MatchLabels, name)
		b := a[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget "+name)
		require.Equal(t, d.Spec.Selector.MatchLabels, b.Spec.Selector.MatchLabels, name)
		require.Equal(t, "1", b.Spec.MaxUnavailable.String(), name)
	}

	c := a[*batchv1.CronJob](t, all, "CronJob pat--authenticate--be--cron--prod")
	require.Equal(t, "* * * * *", c.Spec.Schedule)
	require.Equal(t, batchv1.ForbidConcurrent, c.Spec.ConcurrencyPolicy)

	m := a[*batchv1.Job](t, all, "Job pat--authenticate--be--migrate--prod")
	require.Equal(t, "pre-install,pre-upgrade", m.Annotations["helm.sh/hook"])

	s := a[*corev1.Service](t, all, "Service pat--authenticate--be--app--prod")
	require.Len(t, s.Spec.Ports, 1, "the internal port is on no Service")
	require.EqualValues(t, 80, s.Spec.Ports[0].Port)
	app := a[*appsv1.Deployment](t, all, "Deployment "+s.Name).Spec
	require.Subset(t, app.Template.Labels, s.Spec.Selector)
	i := slices.IndexFunc(app.Template.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool {
		return p.Name == s.Spec.Ports[0].TargetPort.String()
	})
	require.EqualValues(t, 8080, app.Template.Spec.Containers[0].Ports[i].ContainerPort)

	in := a[*networkingv1.Ingress](t, all, "Ingress "+s.Name)
	require.Equal(t, "id.example.org", in.Spec.Rules[0].Host, "the issuer's host")
}

func TestNamesWithoutEnvironment(t *testing.T) {
	all := objects(t, "id", map[string]any{})
	for _, key := range []string{
		"Deployment id--app", "Service id--app", "Deployment id--consumer-lis-patient",
		"Deployment id--wrk--default", "CronJob id--cron", "Job id--migrate",
	} {
		require.Contains(t, all, key)
	}
	for key := range all {
		require.False(t, strings.HasPrefix(key, "PodDisruptionBudget"), "a budget over one replica would stop every drain: %s", key)
		require.False(t, strings.HasPrefix(key, "Ingress"), key)
	}
}

func TestNamesAreNotCut(t *testing.T) {
	for name, wrong := range map[string]string{
		strings.Repeat("a", 41): "",
		strings.Repeat("a", 42): "at most 63",
		strings.Repeat("a", 47): "at most 5", // Kubernetes adds to a CronJob's name
	} {
		_, err := render(name, map[string]any{})
		if wrong == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, wrong)
	}
}

func TestEveryWorkload(t *testing.T) {
	all := pods(objects(t, release, prod(t)))
	args := map[string]string{}
	for key, p := range all {
		t.Run(key, func(t *testing.T) {
			s, c := p.Spec, p.Spec.Containers[0]
			require.Len(t, s.Containers, 1)
			require.Len(t, c.Args, 1)
			args[c.Args[0]] = key

			require.False(t, *s.AutomountServiceAccountToken)
			require.False(t, *s.EnableServiceLinks, "they would be variables that look like settings")
			require.True(t, *s.SecurityContext.RunAsNonRoot)
			require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, s.SecurityContext.SeccompProfile.Type)
			require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
			require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
			require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
			require.NotEmpty(t, c.Resources.Requests)
			require.NotEmpty(t, c.Resources.Limits.Memory().String())

			if !strings.HasPrefix(key, "Deployment ") {
				require.Equal(t, corev1.RestartPolicyNever, s.RestartPolicy)
				require.Nil(t, c.ReadinessProbe)
				return
			}
			require.Equal(t, "/livez", c.LivenessProbe.HTTPGet.Path)
			require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
			for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				require.Equal(t, "internal", probe.HTTPGet.Port.String())
			}
			require.Contains(t, c.Ports, corev1.ContainerPort{Name: "internal", ContainerPort: 9090})
			require.Greater(t, *s.TerminationGracePeriodSeconds, c.Lifecycle.PreStop.Sleep.Seconds+30)
		})
	}
	require.Equal(t, []string{"app", "consumer", "cron", "migrate", "worker"}, slices.Sorted(maps.Keys(args)))
}

// Secrets are files of Secrets that exist: never a value, an env or a ConfigMap.
func TestSecretsAreMountedFiles(t *testing.T) {
	all := objects(t, release, prod(t))
	for key, p := range pods(all) {
		c := p.Spec.Containers[0]
		require.Empty(t, c.EnvFrom, key)
		files := map[string]bool{}
		for _, v := range p.Spec.Volumes {
			if v.Projected == nil {
				require.NotNil(t, v.ConfigMap, "%s: %s", key, v.Name)
				continue
			}
			require.EqualValues(t, 0o440, *v.Projected.DefaultMode, key)
			for _, source := range v.Projected.Sources {
				files["/etc/patauth/secrets/"+source.Secret.Items[0].Path] = true
			}
		}
		for _, e := range c.Env {
			require.Nil(t, e.ValueFrom, "%s: %s", key, e.Name)
			if e.Name != "PATAUTH_CONFIG" {
				require.True(t, files[e.Value], "%s: %s names %s, which nothing mounts", key, e.Name, e.Value)
			}
		}
		require.Contains(t, files, "/etc/patauth/secrets/storage.dsn", key)
		require.Equal(t, c.Args[0] == "worker", files["/etc/patauth/secrets/smtp.password"], "only the worker mails: %s", key)
	}
	migrate := pods(all)["Job "+release+"--migrate--prod"].Spec
	require.Equal(t, "patauth-migrate", migrate.Volumes[1].Projected.Sources[0].Secret.Name, "its own database user")
}

func TestWhoMayReachWhat(t *testing.T) {
	all := objects(t, release, prod(t))
	everyone := a[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy "+release+"--all--prod").Spec
	for key, p := range pods(all) {
		require.Subset(t, p.Labels, everyone.PodSelector.MatchLabels, key)
	}
	require.Len(t, everyone.Ingress, 1)
	require.EqualValues(t, 9090, everyone.Ingress[0].Ports[0].Port.IntValue())
	require.NotEmpty(t, everyone.Ingress[0].From)
	require.EqualValues(t, 53, everyone.Egress[0].Ports[0].Port.IntValue())

	all = objects(t, "id", map[string]any{})
	everyone = a[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy id--all").Spec
	require.Empty(t, everyone.Ingress, "nobody reaches the internal port unless they are named")
	app := a[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy id--app").Spec
	require.EqualValues(t, 8080, app.Ingress[0].Ports[0].Port.IntValue())
}

func TestAChangedConfigurationRestartsPods(t *testing.T) {
	sum := func(values map[string]any) string {
		return pods(objects(t, "id", values))["Deployment id--app"].Annotations["checksum/config"]
	}
	require.NotEqual(t, sum(map[string]any{}), sum(parseValues(t, "config: {log: {level: debug}}")))
}

func TestWrongValuesAreRefused(t *testing.T) {
	for text, wrong := range map[string]string{
		"replicas: 3":                                      "replicas",
		"app: {replica: 3}":                                "replica",
		"app: {replicas: many}":                            "replicas",
		"environment: Prod_1":                              "environment",
		"image: {digest: latest}":                          "digest",
		"config: {issuer: id.example.org}":                 "issuer",
		"config: {issuer: 'https://id.example.org/path'}":  "issuer",
		"config: {isuer: x}":                               "isuer",
		"config: {listen: ':80'}":                          "listen",
		"config: {storage: {dsn: 'postgres://u:p@h/d'}}":   "dsn",
		"config: {smtp: {password: hunter2}}":              "password",
		"config: {kafka: {brokers: [kafka]}}":              "brokers",
		"config: {kafka: {security: {password: x}}}":       "password",
		"config: {session: {idle: 30}}":                    "idle",
		"secrets: {storage.dsn: 'postgres://u:p@h/d'}":     "storage.dsn",
		"secrets: {kafka.security.ca: {secret: a}}":        "key",
		"secrets: {storage.password: {secret: a, key: b}}": "storage.password",
		"migrate: {secrets: {dsn: {secret: a, key: b}}}":   "dsn",
		"ingress: {enabled: 'yes'}":                        "enabled",
	} {
		_, err := render(release, with(t, prod(t), text))
		require.ErrorContains(t, err, wrong, text)
	}
}

// The tests above are worth something only if the decoder sees mistakes.
func TestMisspeltFieldsAreSeen(t *testing.T) {
	files, err := render(release, prod(t))
	require.NoError(t, err)
	app, _, _ := strings.Cut(files["patauth/templates/app.yaml"], "\n---\n")
	_, _, err = decode(app)
	require.NoError(t, err)
	for right, wrong := range map[string]string{
		"readinessProbe:":          "readynessProbe:",
		"livenessProbe:":           "livenessprobe:",
		"replicas: 3":              "replicas: \"3\"",
		"readOnlyRootFilesystem:":  "readOnlyRootFileSystem:",
		"maxUnavailable: 0":        "maxUnavailable: 0\n      maxUnavailable: 1",
		"kind: Deployment":         "kind: Deploiment",
		"seccompProfile:\n":        "seccompProfiles:\n",
		"terminationGracePeriodS":  "terminationGraceperiodS",
		"topologySpreadConstraint": "topologySpreadConstrain",
	} {
		require.Contains(t, app, right)
		_, _, err := decode(strings.Replace(app, right, wrong, 1))
		require.Error(t, err, wrong)
	}
}

// Each value has its line in the schema, so that none can be misspelt.
func TestTheSchemaKnowsTheDefaults(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(folder, "values.schema.json"))
	require.NoError(t, err)
	var schema struct{ Properties map[string]any }
	require.NoError(t, json.Unmarshal(b, &schema))
	delete(schema.Properties, "global")
	require.ElementsMatch(t,
		slices.Collect(maps.Keys(readValues(t, filepath.Join(folder, "values.yaml")))),
		slices.Collect(maps.Keys(schema.Properties)))
}
