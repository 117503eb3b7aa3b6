package lis

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// BenchmarkApply is the whole path of a message, in full batches of new records.
func BenchmarkApply(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *storage.DB{"sqlite": storagetest.SQLite, "postgres": storagetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			db := open(b)
			for _, a := range testAuthorities {
				require.NoError(b, db.UpsertLabAuthority(b.Context(), a))
			}
			n := 0
			for b.Loop() {
				records := make([]Record, batchSize)
				for i := range records {
					records[i] = hl7Record([]byte(adtMessage("A28", n, pid(fmt.Sprint(n), anna))))
					records[i].Offset = int64(n)
					n++
				}
				_, err := ApplyRecords(b.Context(), db, records, Reading{})
				require.NoError(b, err)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	r := hl7Record([]byte(adtMessage("A28", 1, pid("1", anna))))
	b.ReportAllocs()
	for b.Loop() {
		_, err := Decode(r, Reading{}, testNow)
		require.NoError(b, err)
	}
}
