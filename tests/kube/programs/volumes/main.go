// Provides volumes for the storage classes of provisioner novacron.io/local: a folder of the node that a claim's first pod
// was scheduled to. Removes folder and volume when the claim is gone and the class says so. Not here: limits of size.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	provisioner = "novacron.io/local"
	// Written by the scheduler, and by the controller of volumes.
	selectedNode  = "volume.kubernetes.io/selected-node"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	hostname      = "kubernetes.io/hostname"
	// What failed is tried again after this.
	resync = 5 * time.Second
)

type volumes struct {
	client kubernetes.Interface
	// One folder for each volume of any node: all are on one machine.
	root string
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "who asks the API server")
	root := flag.String("root", "", "folder for volumes")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	v := volumes{client: kubernetes.NewForConfigOrDie(config), root: *root}
	factory := informers.NewSharedInformerFactory(v.client, resync)
	handle(factory.Core().V1().PersistentVolumeClaims().Informer(), v.provide)
	handle(factory.Core().V1().PersistentVolumes().Informer(), v.remove)
	factory.Start(context.Background().Done())
	select {}
}

// handle calls do with each object that is new or changed, and with all of them every resync.
func handle[T any](informer cache.SharedInformer, do func(T) error) {
	each := func(object any) {
		if err := do(object.(T)); err != nil {
			log.Print(err)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    each,
		UpdateFunc: func(_, object any) { each(object) },
	})
	if err != nil {
		log.Fatal(err)
	}
}

func (v volumes) provide(claim *core.PersistentVolumeClaim) error {
	node := claim.Annotations[selectedNode]
	if claim.Status.Phase != core.ClaimPending || claim.Spec.VolumeName != "" || node == "" ||
		claim.Spec.StorageClassName == nil || claim.DeletionTimestamp != nil {
		return nil
	}
	class, err := v.client.StorageV1().StorageClasses().Get(context.Background(), *claim.Spec.StorageClassName, meta.GetOptions{})
	if err != nil || class.Provisioner != provisioner {
		return err
	}
	name := "pvc-" + string(claim.UID)
	folder := filepath.Join(v.root, name)
	// Whose it is decides the pod's fsGroup.
	if err := errors.Join(os.MkdirAll(folder, 0o777), os.Chmod(folder, 0o777)); err != nil {
		return err
	}
	_, err = v.client.CoreV1().PersistentVolumes().Create(context.Background(), &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: core.PersistentVolumeSpec{
			Capacity:    core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			PersistentVolumeSource: core.PersistentVolumeSource{
				Local: &core.LocalVolumeSource{Path: folder},
			},
			NodeAffinity: &core.VolumeNodeAffinity{Required: on(node)},
		},
	}, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func on(node string) *core.NodeSelector {
	return &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
		MatchExpressions: []core.NodeSelectorRequirement{{
			Key: hostname, Operator: core.NodeSelectorOpIn, Values: []string{node},
		}},
	}}}
}

func (v volumes) remove(volume *core.PersistentVolume) error {
	if volume.Status.Phase != core.VolumeReleased || volume.Annotations[provisionedBy] != provisioner ||
		volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(v.root, volume.Name)); err != nil {
		return err
	}
	err := v.client.CoreV1().PersistentVolumes().Delete(context.Background(), volume.Name, meta.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
