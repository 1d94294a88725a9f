package host_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

var attributes = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// authority is a CA.
type authority struct {
	testing.TB
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	a := authority{TB: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	}
	a.certificate = template
	der := a.signed(template, a.key)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.certificate = certificate
	return a
}

// client is a client's certificate, PEM, with this serial number (hexadecimal) and value of the attribute extension.
func (a authority) client(serial string, value []byte) []byte {
	number, fits := new(big.Int).SetString(serial, 16)
	if !fits {
		a.Fatalf("no serial number: %s", serial)
	}
	template := &x509.Certificate{SerialNumber: number, NotAfter: time.Now().Add(time.Hour)}
	if value != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: attributes, Value: value}}
	}
	return inPEM("CERTIFICATE", a.signed(template, newKey(a)))
}

// service is certificate and key of a TLS server or client on loopback, PEM.
func (a authority) service() (certificate, key []byte) {
	private := newKey(a)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.Fatal(err)
	}
	return inPEM("CERTIFICATE", a.signed(template, private)), inPEM("EC PRIVATE KEY", der)
}

func (a authority) pem() []byte { return inPEM("CERTIFICATE", a.certificate.Raw) }

func (a authority) signed(template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		a.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
