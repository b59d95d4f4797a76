cmp short.in short.out
