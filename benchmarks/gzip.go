// gzip.go LEVEL: standard input compressed as Go's compress/gzip does, which containerd's, BuildKit's and kaniko's
// layers come from; prints bytes and seconds of CPU time.
package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
)

type counter struct{ bytes int64 }

func (c *counter) Write(data []byte) (int, error) {
	c.bytes += int64(len(data))
	return len(data), nil
}

func main() {
	level, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	before := userTime()
	out := &counter{}
	writer, err := gzip.NewWriterLevel(out, level)
	if err != nil {
		panic(err)
	}
	if _, err = writer.Write(data); err == nil {
		err = writer.Close()
	}
	if err != nil {
		panic(err)
	}
	fmt.Println(out.bytes, (userTime() - before).Seconds())
}

func userTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano())
}
