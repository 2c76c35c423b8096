# Draws a table of docs/performance: gnuplot -c benches/plot.gnuplot TABLE.csv PICTURE.svg
# The first column is the horizontal axis, in powers of ten unless it is time. Each other one has a
# panel of its own, but for p50 and p99, which share the last.
table = ARG1
set datafile separator ','
stats table skip 1 nooutput
columns = STATS_columns
header(n) = system(sprintf("head -1 '%s' | cut -d, -f%d", table, n))
panels = columns - 1 - (header(columns) eq 'p99 ms')
is_time = header(1) eq 'seconds'
set terminal svg size 720, 50 + 160 * panels font 'sans-serif,12' background '#ffffff'
set output ARG2
set multiplot layout panels, 1 margins 0.11, 0.96, 0.1, 0.98 spacing 0, 0.03
set grid lt 1 lc rgb '#dddddd'
set border 3 lc rgb '#888888'
set tics nomirror textcolor rgb '#333333'
unset key
if (!is_time) { set logscale x; set mxtics 1 }
set format x ''
set yrange [0:*]
mark = is_time ? 0 : 0.5
do for [n = 2 : panels + 1] {
    if (n == panels + 1) { set format x '%g'; set xlabel header(1) }
    if (header(n) eq 'p50 ms') {
        next = n + 1
        set ylabel 'p50, p99 (red), ms' offset 1, 0
        set logscale y
        set yrange [*:*]
        set mytics 1
        plot table using 1:n skip 1 with linespoints pt 7 ps mark lc rgb '#2166ac', \
             table using 1:next skip 1 with linespoints pt 7 ps mark lc rgb '#b2182b'
    } else {
        set ylabel header(n) offset 1, 0
        plot table using 1:n skip 1 with linespoints pt 7 ps mark lc rgb '#2166ac'
    }
}
unset multiplot
