// The Python runtime of the archives. Go's module proxy is where a standalone CPython for every platform can be had
// by name, version and checksum (go.sum); no Go code of it is built.
module lightkeeper/runtime

go 1.22

require github.com/kluctl/go-embed-python v0.0.0-3.14.6-20260610-1
