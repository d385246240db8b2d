// stargz-snapshotter as a daemon: what its containerd-stargz-grpc does, which the Go module proxy does not have.
//
// snapshotter SOCKET ROOT HOSTS: serves on SOCKET, keeps its state in ROOT, and asks registries by the hosts.toml of HOSTS.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/containerd/stargz-snapshotter/service/resolver"
	"google.golang.org/grpc"
)

func serve(socket, root, hosts string) error {
	ctx := context.Background()
	config := service.Config{}
	config.NoBackgroundFetch = os.Getenv("BACKGROUND_FETCH") == ""
	asked := resolver.RegistryHostsFromCRIConfig(ctx, resolver.Registry{ConfigPath: hosts})
	snapshotter, err := service.NewStargzSnapshotterService(ctx, root, &config, service.WithCustomRegistryHosts(asked))
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		server.Stop()
	}()
	fmt.Fprintln(os.Stderr, "serving")
	if err := server.Serve(listener); err != nil {
		return err
	}
	// Its mounts go.
	return snapshotter.Close()
}

func main() {
	if err := serve(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
