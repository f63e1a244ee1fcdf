// Package dockpb is the protocol between osdslet and osdsdock, generated from
// dock.proto by `make proto`.
package dockpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative dock.proto
