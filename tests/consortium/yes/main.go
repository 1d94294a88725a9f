// Command yes is what a cheating organisation might run instead of the contract: it agrees to every transaction, and
// writes what it was asked for. It speaks the contract's way (docs/contract.md): {"result":…,"sequence":…}.
package main

import (
	"log"
	"os"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

type yes struct{}

func (yes) Init(shim.ChaincodeStubInterface) *peer.Response { return shim.Success(nil) }

func (yes) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	function, args := stub.GetFunctionAndParameters()
	if err := stub.PutState("yes/"+function, []byte(args[0])); err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success([]byte(`{"result":null,"sequence":1}`))
}

func file(name string) []byte {
	content, err := os.ReadFile(os.Getenv(name))
	if err != nil {
		log.Fatal(err)
	}
	return content
}

func main() {
	server := &shim.ChaincodeServer{
		CCID:    os.Getenv("CHAINCODE_ID"),
		Address: os.Getenv("CHAINCODE_SERVER_ADDRESS"),
		CC:      yes{},
		TLSProps: shim.TLSProperties{
			Key:           file("CHAINCODE_TLS_KEY"),
			Cert:          file("CHAINCODE_TLS_CERT"),
			ClientCACerts: file("CHAINCODE_TLS_CLIENT_CA"),
		},
	}
	log.Fatal(server.Start())
}
