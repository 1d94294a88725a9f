// Command chaincode runs the ledger's contract as a Fabric chaincode service. Its environment: host.Server.
package main

import (
	"fmt"
	"os"

	"orthanc-ledger/chaincode/host"
)

func main() {
	server, err := host.Server(os.Getenv)
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaincode:", err)
		os.Exit(1)
	}
}
