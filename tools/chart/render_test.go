// Package chart tests charts/patauth: it renders the chart with Helm's own engine
// and decodes each object strictly with the Kubernetes types, so that a misspelt
// field is an error here and not in a cluster.
package chart

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	folder  = "../../charts/patauth"
	release = "pat--authenticate--be"
)

// prod are the values an operator starts from.
func prod(t *testing.T) map[string]any {
	return readValues(t, filepath.Join(folder, "values-prod.yaml"))
}

func readValues(t *testing.T, path string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return parseValues(t, string(b))
}

func parseValues(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &v))
	return v
}

// with is values with those of text on top.
func with(t *testing.T, values map[string]any, text string) map[string]any {
	return util.MergeTables(parseValues(t, text), values)
}

// render is what `helm template name charts/patauth` with these values prints, by file.
func render(name string, values map[string]any) (map[string]string, error) {
	c, err := loader.Load(folder)
	if err != nil {
		return nil, err
	}
	kube, err := common.ParseKubeVersion("v1.34.0")
	if err != nil {
		return nil, err
	}
	caps := common.DefaultCapabilities.Copy()
	caps.KubeVersion = *kube
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: name, Namespace: "patients", Revision: 1, IsInstall: true}, caps)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(c, all)
}

// kinds are the types that the chart may hold.
var kinds = map[string]func() metav1.Object{
	"apps/v1 Deployment":                 func() metav1.Object { return new(appsv1.Deployment) },
	"batch/v1 CronJob":                   func() metav1.Object { return new(batchv1.CronJob) },
	"batch/v1 Job":                       func() metav1.Object { return new(batchv1.Job) },
	"v1 ConfigMap":                       func() metav1.Object { return new(corev1.ConfigMap) },
	"v1 Service":                         func() metav1.Object { return new(corev1.Service) },
	"v1 ServiceAccount":                  func() metav1.Object { return new(corev1.ServiceAccount) },
	"networking.k8s.io/v1 NetworkPolicy": func() metav1.Object { return new(networkingv1.NetworkPolicy) },
	"networking.k8s.io/v1 Ingress":       func() metav1.Object { return new(networkingv1.Ingress) },
	"policy/v1 PodDisruptionBudget":      func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
}

// decode reads one YAML document. Unknown, misspelt and doubled fields are errors.
func decode(document string) (kind string, o metav1.Object, err error) {
	b, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return "", nil, err
	}
	var meta metav1.TypeMeta
	if err := json.UnmarshalCaseSensitivePreserveInts(b, &meta); err != nil {
		return "", nil, err
	}
	create := kinds[meta.APIVersion+" "+meta.Kind]
	if create == nil {
		return meta.Kind, nil, fmt.Errorf("the chart should hold no %s %s", meta.APIVersion, meta.Kind)
	}
	o = create()
	faults, err := json.UnmarshalStrict(b, o)
	return meta.Kind, o, errors.Join(append(faults, err)...)
}

// objects renders and decodes; the keys are "Kind name".
func objects(t *testing.T, name string, values map[string]any) map[string]metav1.Object {
	t.Helper()
	files, err := render(name, values)
	require.NoError(t, err)
	out := map[string]metav1.Object{}
	for file, text := range files {
		if !strings.HasSuffix(file, ".yaml") {
			continue
		}
		for _, document := range strings.Split(text, "\n---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			kind, o, err := decode(document)
			require.NoError(t, err, "%s:\n%s", file, document)
			key := kind + " " + o.GetName()
			require.NotContains(t, out, key, "%s renders it again", file)
			require.Equal(t, "patients", o.GetNamespace(), key)
			out[key] = o
		}
	}
	return out
}

// a finds an object by kind and name.
func a[T metav1.Object](t *testing.T, all map[string]metav1.Object, key string) T {
	t.Helper()
	require.Contains(t, all, key)
	o, ok := all[key].(T)
	require.True(t, ok, "%s is a %T", key, all[key])
	return o
}

// pods are the pod templates by the object that makes them.
func pods(all map[string]metav1.Object) map[string]corev1.PodTemplateSpec {
	out := map[string]corev1.PodTemplateSpec{}
	for key, o := range all {
		switch o := o.(type) {
		case *appsv1.Deployment:
			out[key] = o.Spec.Template
		case *batchv1.Job:
			out[key] = o.Spec.Template
		case *batchv1.CronJob:
			out[key] = o.Spec.JobTemplate.Spec.Template
		}
	}
	return out
}
