package contract

import "iter"

// MaxRows is how many rows a list gives at most: of the largest there are, it stays below the 100 MiB of Fabric's
// messages (docs/contract.md, "Queries").
const MaxRows = 50

var pageArguments = schema{optional("offset", integer(0, 1<<53)), optional("limit", integer(1, MaxRows))}

// page is the items from offset on, limit of them at most: the arguments every query with a list takes.
func page(items iter.Seq[Value], args Map) List {
	skip, most := int64(0), int64(MaxRows)
	if args.Has("offset") {
		skip = args.Int("offset")
	}
	if args.Has("limit") {
		most = args.Int("limit")
	}
	found := List{}
	for item := range items {
		if skip > 0 {
			skip--
			continue
		}
		found = append(found, item)
		if most--; most == 0 {
			break
		}
	}
	return found
}

// valuesOf is what stands under the keys of a scan.
func valuesOf(rows iter.Seq2[string, Value]) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for _, value := range rows {
			if !yield(value) {
				return
			}
		}
	}
}
