package ipld

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// EncodeJSON is the value's canonical DAG-JSON: map keys sorted by their bytes, no white space, bytes as
// {"/":{"bytes":BASE64}} without padding. Strings are UTF-8; only quotation mark, backslash and the characters below
// U+0020 are escaped, as RFC 8785 3.2.2.2 says.
func EncodeJSON(value Value) []byte {
	return appendJSON(nil, value)
}

// DecodeJSON reads a value back. It is an error when the text is not the canonical DAG-JSON of a value: fractions,
// integers beyond 64 bits, links, duplicate keys, keys in another order, white space, trailing text, other escapes and
// broken UTF-8 are all refused.
func DecodeJSON(text []byte) (Value, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var parsed any
	if err := decoder.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	value, err := valueOf(parsed)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(EncodeJSON(value), text) {
		return nil, fmt.Errorf("not canonical DAG-JSON: expected sorted unique keys, shortest forms and no white space")
	}
	return value, nil
}

func appendJSON(text []byte, value Value) []byte {
	switch value := value.(type) {
	case nil:
		return append(text, "null"...)
	case bool:
		return strconv.AppendBool(text, value)
	case int64:
		return strconv.AppendInt(text, value, 10)
	case string:
		return appendString(text, value)
	case []byte:
		text = append(text, `{"/":{"bytes":"`...)
		text = base64.RawStdEncoding.AppendEncode(text, value)
		return append(text, `"}}`...)
	case List:
		text = append(text, '[')
		for i, item := range value {
			text = appendJSON(appendComma(text, i), item)
		}
		return append(text, ']')
	case Map:
		text = append(text, '{')
		for i, name := range slices.Sorted(maps.Keys(value)) {
			text = append(appendString(appendComma(text, i), name), ':')
			text = appendJSON(text, value[name])
		}
		return append(text, '}')
	}
	panic(fmt.Sprintf("ipld: %T is no value", value))
}

func appendComma(text []byte, position int) []byte {
	if position == 0 {
		return text
	}
	return append(text, ',')
}

func appendString(text []byte, value string) []byte {
	text = append(text, '"')
	for _, octet := range []byte(value) {
		if octet >= ' ' && octet != '"' && octet != '\\' {
			text = append(text, octet)
			continue
		}
		text = appendEscaped(text, octet)
	}
	return append(text, '"')
}

func appendEscaped(text []byte, octet byte) []byte {
	const short, letters = "\"\\\b\f\n\r\t", `"\bfnrt`
	if i := strings.IndexByte(short, octet); i >= 0 {
		return append(text, '\\', letters[i])
	}
	return fmt.Appendf(text, `\u%04x`, octet)
}

// valueOf makes a value of what encoding/json gives.
func valueOf(parsed any) (Value, error) {
	switch parsed := parsed.(type) {
	case json.Number:
		number, err := strconv.ParseInt(parsed.String(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("expected an integer of 64 bits, got %s", parsed)
		}
		return number, nil
	case []any:
		list := make(List, len(parsed))
		for i, item := range parsed {
			value, err := valueOf(item)
			if err != nil {
				return nil, err
			}
			list[i] = value
		}
		return list, nil
	case map[string]any:
		if reserved, there := parsed["/"]; there {
			return bytesOf(reserved)
		}
		values := make(Map, len(parsed))
		for name, item := range parsed {
			value, err := valueOf(item)
			if err != nil {
				return nil, err
			}
			values[name] = value
		}
		return values, nil
	}
	return parsed, nil // nil, bool, string
}

// bytesOf reads what stands under the name "/", which DAG-JSON reserves: here it can only be {"bytes": BASE64}. What
// else stands beside it is lost, so that DecodeJSON refuses it.
func bytesOf(reserved any) ([]byte, error) {
	form, _ := reserved.(map[string]any)
	encoded, fits := form["bytes"].(string)
	if !fits {
		return nil, fmt.Errorf(`expected {"/":{"bytes":BASE64}}, got another value under "/"`)
	}
	octets, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("bytes: expected base64 without padding: %w", err)
	}
	return octets, nil
}
