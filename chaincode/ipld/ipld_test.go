package ipld_test

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"orthanc-ledger/chaincode/ipld"
)

var values = map[string]ipld.Value{
	`null`:                                  nil,
	`true`:                                  true,
	`-9223372036854775808`:                  int64(-1 << 63),
	`9223372036854775807`:                   int64(1<<63 - 1),
	`""`:                                    "",
	"\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\"": "\b\t\n\f\r\x01\x1f\x7f",
	`"\"\\/ <>&ä😀` + "\u2028" + `"`:         "\"\\/ <>&ä😀\u2028",
	`{"/":{"bytes":""}}`:                    []byte{},
	`{"/":{"bytes":"+/8"}}`:                 []byte{0xfb, 0xff},
	`[]`:                                    ipld.List{},
	`[1,[true,null]]`:                       ipld.List{int64(1), ipld.List{true, nil}},
	`{}`:                                    ipld.Map{},
	`{"":0,"Z":1,"a":2,"aa":3,"b":4,"ä":5}`: ipld.Map{
		"": int64(0), "Z": int64(1), "a": int64(2), "aa": int64(3), "b": int64(4), "ä": int64(5),
	},
}

func TestAValueHasOneText(t *testing.T) {
	for text, value := range values {
		if encoded := string(ipld.EncodeJSON(value)); encoded != text {
			t.Errorf("expected %s, got %s", text, encoded)
		}
		decoded, err := ipld.DecodeJSON([]byte(text))
		if err != nil || !reflect.DeepEqual(decoded, value) {
			t.Errorf("%s: expected %#v, got %#v, %v", text, value, decoded, err)
		}
	}
}

func TestOtherTextsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                     ``,
		"a part":                      `{"a":1`,
		"trailing text":               `1 2`,
		"white space":                 `{"a": 1}`,
		"a line's end":                "1\n",
		"a fraction":                  `1.5`,
		"a whole fraction":            `1.0`,
		"an exponent":                 `1e2`,
		"minus nothing":               `-0`,
		"leading zero":                `01`,
		"beyond 64 bits":              `9223372036854775808`,
		"far beyond":                  `-` + strings.Repeat("9", 100),
		"not a number":                `NaN`,
		"duplicate keys":              `{"a":1,"a":1}`,
		"keys in another order":       `{"b":1,"a":2}`,
		"a needless escape":           `"\u0041"`,
		"an escape with capitals":     `"\u001F"`,
		"an escaped slash":            `"\/"`,
		"half of a character":         `"\ud800"`,
		"broken UTF-8":                "\"\xff\"",
		"a raw control character":     "\"\x01\"",
		"a link":                      `{"/":"bafy"}`,
		"bytes with padding":          `{"/":{"bytes":"+w=="}}`,
		"bytes with loose bits":       `{"/":{"bytes":"+x"}}`,
		"bytes in another alphabet":   `{"/":{"bytes":"-_8"}}`,
		"bytes with a line's end":     `{"/":{"bytes":"+\n/8"}}`,
		"bytes and something":         `{"/":{"bytes":"","more":1}}`,
		"bytes beside something":      `{"/":{"bytes":""},"a":1}`,
		"bytes that are none":         `{"/":{"bytes":1}}`,
		"something before the bytes":  `{"+":1,"/":{"bytes":""}}`,
		"deeper than anything of use": strings.Repeat("[", 1<<20),
	} {
		if value, err := ipld.DecodeJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken for %#v", name, value)
		}
	}
}

func TestDAGCBORIsCanonical(t *testing.T) {
	value := ipld.Map{
		"aa": []byte{1}, "b": ipld.List{nil, true, int64(-1), int64(23), int64(24), int64(1 << 32)}, "a": "ä",
		"m": ipld.Map{},
	}
	// By hand from RFC 8949; the keys by length, then by bytes: a, b, m, aa.
	expected := "a4" + "6161" + "62c3a4" + "6162" + "86" + "f6" + "f5" + "20" + "17" + "1818" + "1b0000000100000000" +
		"616d" + "a0" + "626161" + "4101"
	if encoded := hex.EncodeToString(ipld.EncodeCBOR(value)); encoded != expected {
		t.Errorf("expected %s, got %s", expected, encoded)
	}
}

func TestReadersOfAMapRefuseWhatIsNotThereOrOfAnotherType(t *testing.T) {
	record := ipld.Map{"number": int64(1), "nothing": nil}
	for name, read := range map[string]func(){
		"another type": func() { record.Text("number") },
		"null":         func() { record.Int("nothing") },
		"absent":       func() { record.Map("record") },
		"not picked":   func() { record.Only("record") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				cause, _ := recover().(error)
				var mistyped ipld.Mistyped
				if !errors.As(cause, &mistyped) {
					t.Errorf("expected Mistyped, got %v", cause)
				}
			}()
			read()
		})
	}
}

func FuzzOnlyCanonicalTextsAreTaken(f *testing.F) {
	for text := range values {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, err := ipld.DecodeJSON(text)
		if err != nil {
			return
		}
		if encoded := ipld.EncodeJSON(value); string(encoded) != string(text) {
			t.Errorf("%q is taken, its canonical text is %q", text, encoded)
		}
		ipld.EncodeCBOR(value)
	})
}
