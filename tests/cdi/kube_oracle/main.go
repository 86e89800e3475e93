// Command kube-oracle lets the tests ask Kubernetes' own validation about manifests, offline.
//
// It reads YAML documents on standard input and writes one JSON answer a line:
//
//	{"type":"v1 Pod","errors":["..."]}
//
// Each document is decoded strictly (unknown fields and fields given twice are errors), defaulted
// and validated as the API server does it at creation, CEL expressions included.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/apis/core"
	corepkgv1 "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourceapiv1 "k8s.io/kubernetes/pkg/apis/resource/v1"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
	"sigs.k8s.io/yaml"
)

type answer struct {
	Type   string   `json:"type"`
	Errors []string `json:"errors"`
}

var scheme = runtime.NewScheme()

func main() {
	for _, add := range []func(*runtime.Scheme) error{
		corepkgv1.AddToScheme, core.AddToScheme, resourceapiv1.AddToScheme, resource.AddToScheme,
	} {
		must(add(scheme))
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		raw, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		must(err)
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		must(out.Encode(judge(raw)))
	}
}

func judge(raw []byte) answer {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	found := answer{Errors: []string{}}
	if err := yaml.Unmarshal(raw, &head); err != nil {
		found.Errors = append(found.Errors, err.Error())
		return found
	}
	found.Type = head.APIVersion + " " + head.Kind
	problems, err := validate(found.Type, raw)
	if err != nil {
		found.Errors = append(found.Errors, err.Error())
	}
	for _, problem := range problems {
		found.Errors = append(found.Errors, problem.Error())
	}
	return found
}

func validate(kind string, raw []byte) (field.ErrorList, error) {
	switch kind {
	case "v1 Pod":
		value := corev1.Pod{}
		if err := yaml.UnmarshalStrict(raw, &value); err != nil {
			return nil, err
		}
		return validatePod(value.ObjectMeta.Annotations, value.Spec)
	case "apps/v1 Deployment":
		value := appsv1.Deployment{}
		return template(raw, &value, func() corev1.PodTemplateSpec { return value.Spec.Template })
	case "apps/v1 StatefulSet":
		value := appsv1.StatefulSet{}
		return template(raw, &value, func() corev1.PodTemplateSpec { return value.Spec.Template })
	case "apps/v1 DaemonSet":
		value := appsv1.DaemonSet{}
		return template(raw, &value, func() corev1.PodTemplateSpec { return value.Spec.Template })
	case "apps/v1 ReplicaSet":
		value := appsv1.ReplicaSet{}
		return template(raw, &value, func() corev1.PodTemplateSpec { return value.Spec.Template })
	case "batch/v1 Job":
		value := batchv1.Job{}
		return template(raw, &value, func() corev1.PodTemplateSpec { return value.Spec.Template })
	case "batch/v1 CronJob":
		value := batchv1.CronJob{}
		return template(raw, &value, func() corev1.PodTemplateSpec {
			return value.Spec.JobTemplate.Spec.Template
		})
	case "resource.k8s.io/v1 DeviceClass":
		value, in := resourcev1.DeviceClass{}, resource.DeviceClass{}
		if err := convert(raw, &value, &in); err != nil {
			return nil, err
		}
		return resourcevalidation.ValidateDeviceClass(&in), nil
	case "resource.k8s.io/v1 ResourceClaimTemplate":
		value, in := resourcev1.ResourceClaimTemplate{}, resource.ResourceClaimTemplate{}
		if err := convert(raw, &value, &in); err != nil {
			return nil, err
		}
		if in.Namespace == "" {
			in.Namespace = "default"
		}
		return resourcevalidation.ValidateResourceClaimTemplate(&in), nil
	case "resource.k8s.io/v1 ResourceSlice":
		value, in := resourcev1.ResourceSlice{}, resource.ResourceSlice{}
		if err := convert(raw, &value, &in); err != nil {
			return nil, err
		}
		return resourcevalidation.ValidateResourceSlice(&in), nil
	}
	return nil, fmt.Errorf("%s is not a type that this program knows", kind)
}

func convert(raw []byte, value, in runtime.Object) error {
	if err := yaml.UnmarshalStrict(raw, value); err != nil {
		return err
	}
	scheme.Default(value)
	return scheme.Convert(value, in, nil)
}

func template(raw []byte, value any, pod func() corev1.PodTemplateSpec) (field.ErrorList, error) {
	if err := yaml.UnmarshalStrict(raw, value); err != nil {
		return nil, err
	}
	return validatePod(pod().Annotations, pod().Spec)
}

func validatePod(annotations map[string]string, spec corev1.PodSpec) (field.ErrorList, error) {
	value := corev1.Pod{Spec: spec}
	value.Name, value.Namespace, value.Annotations = "x", "default", annotations
	scheme.Default(&value)
	in := core.Pod{}
	if err := scheme.Convert(&value, &in, nil); err != nil {
		return nil, err
	}
	return corevalidation.ValidatePodCreate(&in, corevalidation.PodValidationOptions{}), nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
